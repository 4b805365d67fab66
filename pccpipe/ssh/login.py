"""Connects to a VM's address and logs in. Errors become `Unavailable`, with a reason and words."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
from typing import TYPE_CHECKING

import paramiko
from msgspec.structs import replace

from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.ssh.algorithms import no_common_algorithm
from pccpipe.ssh.auth import AUTH_TIMEOUT, authenticate
from pccpipe.ssh.heard import HeardSocket
from pccpipe.ssh.known_hosts import HostKey, KnownHosts
from pccpipe.ssh.transport import SSH_ERRORS, Transport

if TYPE_CHECKING:
    from pccpipe.spec.project_model import Vm

CONNECT_TIMEOUT = 10.0
"""Seconds for TCP, and for a channel through a jump host."""
HANDSHAKE_TIMEOUT = 30.0
"""Seconds for sshd's greeting, and again to agree on keys: a machine that swaps takes its time."""
_FROM_THE_SERVER = (*SSH_ERRORS, UnicodeError)
"""The errors that a server's bytes, silence and end cause."""


def log_in(vm: Vm, *, accept_new_host_key: bool) -> tuple[Transport, ...]:
    """Log in, and return the VM's transport and then those of the jump hosts, the first host last.

    Checks each host's key, and logs in to each with keys of this machine. Raises `Unavailable`.
    """
    way = [*_jump_hosts(vm), vm]
    opened: list[Transport] = []
    try:
        for number, hop in enumerate(way):
            stream = _through(opened[0], way[number - 1], hop) if number else _tcp(hop.external_ip, hop.port)
            known = KnownHosts(vm.known_hosts, hop.external_ip, hop.port, jump=",".join(map(_address, way[:number])))
            opened.insert(0, _authenticated(hop, stream, known, accept_new_host_key))
    except BaseException:
        for transport in opened:
            transport.close()
        raise
    return tuple(opened)


def _jump_hosts(vm: Vm) -> list[Vm]:
    """Return the hosts of `proxy_jump`, the first host first."""
    key = vm.jump_key_path or vm.key_path
    hosts = []
    for text in (vm.proxy_jump or "").split(",") if vm.proxy_jump else ():
        match = re.fullmatch(r"(?:([^@]+)@)?(\[[^\]]+\]|[^:]+)(?::(\d+))?", text.strip())
        if not match:
            words = f"invalid jump host {text.strip()!r}"
            raise Unavailable(
                Reason.SSH_NAME_UNKNOWN, words, "write proxy_jump as [USER@]HOST[:PORT], with commas between hosts"
            )
        user, host, port = match.groups()
        address = host.strip("[]")
        hosts.append(replace(vm, user=user or vm.user, external_ip=address, port=int(port or 22), key_path=key))
    return hosts


def _address(hop: Vm) -> str:
    """Write a host as ssh's -J takes it."""
    host = f"[{hop.external_ip}]" if ":" in hop.external_ip else hop.external_ip
    return f"{hop.user}@{host}" + ("" if hop.port == 22 else f":{hop.port}")


def _tcp(host: str, port: int) -> socket.socket:
    target = f"connect to {host} port {port}"
    try:
        connected = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT)
    except socket.gaierror as error:
        raise Unavailable(Reason.SSH_NAME_UNKNOWN, f"{host}: {error.strerror}") from error
    except ConnectionRefusedError as error:
        raise Unavailable(
            Reason.SSH_REFUSED, f"{target}: {error.strerror}", "start sshd there: sudo systemctl enable --now ssh"
        ) from error
    except TimeoutError as error:
        words = f"{target}: nothing answered in {CONNECT_TIMEOUT:g} s"
        raise Unavailable(Reason.SSH_UNREACHABLE, words) from error
    except OSError as error:
        words = f"{target}: {error.strerror or error}"
        raise Unavailable(Reason.SSH_UNREACHABLE, words, _local_network_hint(host, error)) from error
    # Without it a command takes 45 ms on loopback, with it 2 ms.
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connected


def _local_network_hint(host: str, error: OSError) -> str:
    """Name another cause on a Mac: since macOS 15 a program needs a permission for the local network.

    Without it, the program gets "No route to host".
    """
    if os.uname().sysname != "Darwin" or error.errno != errno.EHOSTUNREACH:
        return ""
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(host).is_private:
            return ""
    return "allow the terminal on this Mac: System Settings > Privacy & Security > Local Network"


def _through(jump: Transport, jump_vm: Vm, vm: Vm) -> paramiko.Channel:
    target = f"connect to {vm.external_ip} port {vm.port} through {jump_vm.external_ip}"
    try:
        return jump.open_channel("direct-tcpip", (vm.external_ip, vm.port), ("127.0.0.1", 0), timeout=CONNECT_TIMEOUT)
    except paramiko.ChannelException as error:
        forbidden = error.code == 1
        hint = f"sshd on {jump_vm.external_ip} must allow TCP forwarding" if forbidden else ""
        raise Unavailable(Reason.SSH_UNREACHABLE, f"{target}: {error.text}", hint) from error
    except SSH_ERRORS as error:
        raise _closed(target, jump, error) from error


def _authenticated(
    vm: Vm, stream: socket.socket | paramiko.Channel, known: KnownHosts, accept_new_host_key: bool
) -> Transport:
    where = f"{vm.external_ip} port {vm.port}"
    transport = Transport(HeardSocket(stream))
    transport.banner_timeout = transport.handshake_timeout = HANDSHAKE_TIMEOUT
    try:
        _prefer(transport, known.key_types)
        try:
            transport.start_client(timeout=HANDSHAKE_TIMEOUT)
            server_key = transport.get_remote_server_key()
        except SSH_ERRORS as error:
            raise _closed(where, transport, error) from error
        known.check(HostKey(server_key.get_name(), server_key.asbytes()), accept_new=accept_new_host_key)
        try:
            with transport.heard.waiting(2 * AUTH_TIMEOUT):
                authenticate(transport, vm)
        except SSH_ERRORS as error:
            raise _closed(where, transport, error) from error
    except BaseException:
        transport.close()
        raise
    transport.start_pings()
    return transport


def _prefer(transport: Transport, key_types: list[str]) -> None:
    """Ask the server for a key of a known type first: a new key of another type would look like a change."""
    algorithms = {"ssh-rsa": ["rsa-sha2-512", "rsa-sha2-256"]}
    options = transport.get_security_options()
    wanted = [name for key_type in key_types for name in algorithms.get(key_type, [key_type])]
    ours = list(options.key_types)
    options.key_types = [name for name in wanted if name in ours] + [name for name in ours if name not in wanted]


def _closed(where: str, transport: Transport, error: Exception) -> Unavailable:
    """Return why a connection broke, or why it never was one of SSH."""
    if transport.parting_words:
        return Unavailable(Reason.SSH_CLOSED, f"{where}: {transport.parting_words}")
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return no_common_algorithm(where, transport, str(error))
    text = str(error)
    # paramiko's `start_client` just returns when its time is over.
    if transport.is_active() or isinstance(error.__context__, TimeoutError) or transport.heard.fell_silent:
        words = f"{where}: something accepts connections, but no SSH server answered in {HANDSHAKE_TIMEOUT:g} s"
        return Unavailable(Reason.SSH_UNREACHABLE, words)
    cause = error.__context__
    if "protocol banner" in text and cause and not isinstance(cause, _FROM_THE_SERVER):
        # For every error before the server's first line, paramiko says that it cannot read that line.
        return Unavailable(Reason.SSH_CLOSED, f"{where}: the login failed here: {type(cause).__name__}: {cause}")
    if "protocol banner" in text or isinstance(error, EOFError):
        return Unavailable(Reason.SSH_CLOSED, f"{where}: the connection was closed before the login was done")
    return Unavailable(Reason.SSH_CLOSED, f"{where}: {text or type(error).__name__}")
