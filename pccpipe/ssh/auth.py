"""Logs in with public keys, as `ssh` does: waits for a slow server, and offers an agent's key before signing with it.

paramiko signs at once, in the thread that reads the connection. An agent that refused to sign ended the login. A
token wanted a touch for keys that the server does not know. paramiko also waits only 10 s for the server.
"""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

import paramiko
from msgspec import Struct
from paramiko.agent import ALGORITHM_FLAG_MAP, SSH2_AGENT_SIGN_RESPONSE, cSSH2_AGENTC_SIGN_REQUEST
from paramiko.auth_handler import AuthHandler
from paramiko.common import (
    MSG_SERVICE_ACCEPT,
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_PK_OK,
    MSG_USERAUTH_SUCCESS,
    cMSG_SERVICE_REQUEST,
    cMSG_USERAUTH_REQUEST,
)

from pccpipe import limits
from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.ssh.keys import Identity, add_to_agent, identities, locked_keys
from pccpipe.ssh.transport import SSH_ERRORS, Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from pccpipe.spec.project_model import Vm

AUTH_TIMEOUT = 120.0
"""Seconds for an answer to a key, and for an agent's signature: the default of sshd's LoginGraceTime."""
SERVICE = "ssh-connection"


class AnswerTimeoutError(TimeoutError):
    """The server did not answer in time."""


class AgentRefused(Exception):
    """The agent did not sign with a key of its own."""


class AuthAnswer(Struct, frozen=True):
    """The server's answer to a request."""

    kind: int
    methods: tuple[str, ...] = ()
    """The methods that it would take now."""
    is_partial: bool = False
    """True if the key was right, and the server wants more."""


class Authentication(AuthHandler):
    """One login. Each method waits for the server; raises AnswerTimeoutError, EOFError, SSHException."""

    if TYPE_CHECKING:  # paramiko's type hints leave these out
        auth_event: None

        def _finalize_pubkey_algorithm(self, key_type: str) -> str: ...
        def _parse_userauth_success(self, message: paramiko.Message) -> None: ...
        def _parse_userauth_banner(self, message: paramiko.Message) -> None: ...

    def __init__(self, transport: Transport, user: str) -> None:
        super().__init__(transport)
        self._connection = transport
        self._user = user
        self._answers: queue.Queue[AuthAnswer] = queue.Queue(limits.SSH_ANSWERS.most)
        transport.auth_handler = self

    def open(self) -> None:
        """Ask for the service, once for all keys."""
        message = paramiko.Message()
        message.add_byte(cMSG_SERVICE_REQUEST)
        message.add_string("ssh-userauth")
        self._ask(message)

    def ask_methods(self) -> AuthAnswer:
        """Try to log in without a key; the answer has the methods that the server would take."""
        return self._ask(self._request("none"))

    def offer(self, identity: Identity) -> AuthAnswer:
        """Ask whether the server would take a key: MSG_USERAUTH_PK_OK means yes."""
        algorithm, public = self._public_part(identity.key)
        message = self._request("publickey")
        message.add_boolean(False)
        message.add_string(algorithm)
        message.add_string(public)
        return self._ask(message)

    def prove(self, identity: Identity) -> AuthAnswer:
        """Log in with a key. Raises AgentRefused as well."""
        algorithm, public = self._public_part(identity.key)
        message = self._request("publickey")
        message.add_boolean(True)
        message.add_string(algorithm)
        message.add_string(public)
        signed = paramiko.Message()
        signed.add_string(self._connection.session_id or b"")
        signed.add_bytes(message.asbytes())
        message.add_string(_signature(identity.key, signed.asbytes(), algorithm))
        return self._ask(message)

    def abort(self) -> None:
        """Do nothing: `_ask` checks the connection while it waits."""

    def _request(self, method: str) -> paramiko.Message:
        self.auth_method = method
        message = paramiko.Message()
        message.add_byte(cMSG_USERAUTH_REQUEST)
        for text in (self._user, SERVICE, method):
            message.add_string(text)
        return message

    def _public_part(self, key: paramiko.PKey) -> tuple[str, bytes]:
        """Return the algorithm's name, and the public key or certificate."""
        if key.public_blob is not None:
            return self._finalize_pubkey_algorithm(key.public_blob.key_type), key.public_blob.key_blob
        # The agent names its key: it may be a certificate, or of a kind that paramiko does not know.
        public = key.blob if isinstance(key, paramiko.AgentKey) else key.asbytes()
        return self._finalize_pubkey_algorithm(key.get_name()), public

    def _ask(self, message: paramiko.Message) -> AuthAnswer:
        self._connection._send_message(message)
        deadline = time.monotonic() + AUTH_TIMEOUT
        while True:
            try:
                return self._answers.get(timeout=0.1)
            except queue.Empty:
                pass
            if not self._connection.is_active() and self._answers.empty():
                raise self._connection.get_exception() or EOFError()
            if time.monotonic() > deadline:
                raise AnswerTimeoutError(f"sshd did not answer the login in {AUTH_TIMEOUT:g} s")

    @property
    def _handler_table(self) -> dict[int, Callable[[paramiko.Message], None]]:
        # In the transport's thread.
        return {
            MSG_SERVICE_ACCEPT: lambda _: self._receive(AuthAnswer(MSG_SERVICE_ACCEPT)),
            MSG_USERAUTH_SUCCESS: self._succeeded,
            MSG_USERAUTH_FAILURE: self._failed,
            MSG_USERAUTH_BANNER: self._parse_userauth_banner,
            MSG_USERAUTH_PK_OK: lambda _: self._receive(AuthAnswer(MSG_USERAUTH_PK_OK)),
        }

    def _succeeded(self, message: paramiko.Message) -> None:
        self._parse_userauth_success(message)
        self._receive(AuthAnswer(MSG_USERAUTH_SUCCESS))

    def _failed(self, message: paramiko.Message) -> None:
        methods = tuple(message.get_list())
        self._receive(AuthAnswer(MSG_USERAUTH_FAILURE, methods, message.get_boolean()))

    def _receive(self, answer: AuthAnswer) -> None:
        try:
            self._answers.put_nowait(answer)
        except queue.Full:
            raise paramiko.SSHException("the server sends answers without a request") from None


def authenticate(transport: Transport, vm: Vm) -> None:
    """Log in with the keys of this machine. Raises `Unavailable`, EOFError, OSError, SSHException."""
    try:
        _LoginAttempt(transport, vm).run()
    except AnswerTimeoutError as error:
        words = f"{vm.user}@{vm.external_ip}: {error}"
        hint = "PAM or a directory service there may be slow: see sshd's log on the VM"
        raise Unavailable(Reason.SSH_UNREACHABLE, words, hint) from error


class _LoginAttempt:
    """A login with one key after the other."""

    def __init__(self, transport: Transport, vm: Vm) -> None:
        self._transport = transport
        self._vm = vm
        self._login = Authentication(transport, vm.user)
        self._tried: list[Identity] = []
        self._unsigned: list[tuple[Identity, str]] = []
        """The keys that the server would take and the agent did not sign with, and why."""

    def run(self) -> None:
        self._login.open()
        methods: tuple[str, ...] = ()
        for identity in identities(self._vm.key_path):
            self._tried.append(identity)
            try:
                answer = self._try(identity)
            except AgentRefused as error:
                self._unsigned.append((identity, str(error)))
                continue
            except SSH_ERRORS:
                # A server that refuses more keys says so; otherwise the connection ended.
                if self._transport.parting_words:
                    methods = methods or ("publickey",)
                    break
                raise
            if answer.kind == MSG_USERAUTH_SUCCESS:
                return
            methods = answer.methods
            if "publickey" not in methods:
                break
        if not self._tried:
            answer = self._login.ask_methods()
            if answer.kind == MSG_USERAUTH_SUCCESS:
                return
            methods = answer.methods
        raise self._refused(methods or ("publickey",))

    def _try(self, identity: Identity) -> AuthAnswer:
        if isinstance(identity.key, paramiko.AgentKey):
            answer = self._login.offer(identity)
            if answer.kind != MSG_USERAUTH_PK_OK:
                return answer
        return self._login.prove(identity)

    def _refused(self, methods: tuple[str, ...]) -> Unavailable:
        vm, transport = self._vm, self._transport
        words = f"{vm.user}@{vm.external_ip}: Permission denied ({','.join(methods)})"
        if self._unsigned:
            unsigned = ", ".join(f"{identity.name} ({why})" for identity, why in self._unsigned)
            words = f"{words}; the agent did not sign with {unsigned}"
        said = [transport.parting_words] if transport.parting_words else []
        if banner := transport.get_banner():
            said.append(banner.decode(errors="replace").strip())
        words = ". ".join([words, *said])
        return Unavailable(Reason.SSH_AUTH_FAILED, words, ". ".join(self._hints()))

    def _hints(self) -> list[str]:
        hints = []
        if "Too many authentication failures" in self._transport.parting_words:
            hints.append("more keys than MaxAuthTries allows: vm.key_path may be KEY.pub, for one of the agent's keys")
        if self._unsigned:
            hints.append("let the SSH agent here sign: confirm, unlock it, or touch the token")
        unsigned = [identity for identity, _ in self._unsigned]
        names = ", ".join(identity.name for identity in self._tried if identity not in unsigned)
        if names:
            place = f"~{self._vm.user}/.ssh/authorized_keys there"
            hints.append(f"the server refused {names}: add the public part to {place}")
        if locked := locked_keys(self._vm.key_path):
            hints.append(f"encrypted, and in no agent: {', '.join(map(str, locked))}; {add_to_agent(*locked)}")
        return hints or ["no key was found here: set vm.key_path, or ssh-add one"]


def _signature(key: paramiko.PKey, data: bytes, algorithm: str) -> bytes:
    if not isinstance(key, paramiko.AgentKey):
        return key.sign_ssh_data(data, algorithm).asbytes()
    request = paramiko.Message()
    request.add_byte(cSSH2_AGENTC_SIGN_REQUEST)
    request.add_string(key.blob)
    request.add_string(data)
    request.add_int(ALGORITHM_FLAG_MAP.get(algorithm, 0))
    agent: Any = key.agent  # paramiko's type hints leave these parts out
    try:
        # The agent may ask a person to confirm, or to touch a token.
        agent._conn.settimeout(AUTH_TIMEOUT)
        kind, answer = agent._send_message(request)
    except (OSError, paramiko.SSHException) as error:
        raise AgentRefused(str(error)) from error
    if kind != SSH2_AGENT_SIGN_RESPONSE:
        raise AgentRefused("the agent refused")
    return bytes(answer.get_binary())
