"""Explains that sshd and pccpipe have no algorithm of a kind in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pccpipe import limits
from pccpipe.errors import Unavailable
from pccpipe.outcome import Reason
from pccpipe.ssh.transport import Transport

_ADVICE = {
    "KexAlgorithms": "curve25519-sha256",
    "HostKeyAlgorithms": "ssh-ed25519",
    "Ciphers": "aes256-gcm@openssh.com",
    "MACs": "hmac-sha2-256-etm@openssh.com",
}
"""The algorithm of each kind that every sshd has and hardening lists keep; kinds by their names in sshd_config."""
_NOUNS = {
    "KexAlgorithms": "key exchange",
    "HostKeyAlgorithms": "type of host key",
    "Ciphers": "cipher",
    "MACs": "MAC",
}


def no_common_algorithm(where: str, transport: Transport, words: str) -> Unavailable:
    """Name the kind, each side's algorithms, and the change to sshd; or only `words` if the lists do not differ."""
    for kind, ours in _own(transport).items():
        for theirs in _offered(transport.offered, kind):
            if not set(ours) & set(theirs):
                return _missing(where, kind, ours, theirs)
    return Unavailable(Reason.SSH_INCOMPATIBLE, f"{where}: {words}")


def _own(transport: Transport) -> dict[str, tuple[str, ...]]:
    options = transport.get_security_options()
    return {
        "KexAlgorithms": tuple(options.kex),
        "HostKeyAlgorithms": tuple(options.key_types),
        "Ciphers": tuple(options.ciphers),
        "MACs": tuple(options.digests),
    }


def _offered(offered: Mapping[str, list[str]], kind: str) -> Iterable[list[str]]:
    names = {
        "KexAlgorithms": ["kex_algo_list"],
        "HostKeyAlgorithms": ["server_key_algo_list"],
        "Ciphers": ["client_encrypt_algo_list", "server_encrypt_algo_list"],
        "MACs": ["client_mac_algo_list", "server_mac_algo_list"],
    }
    return (offered[name] for name in names[kind] if name in offered)


def _missing(where: str, kind: str, ours: Iterable[str], theirs: list[str]) -> Unavailable:
    # These names are not algorithms, but signs for extensions.
    offers = ", ".join(name for name in theirs if not name.startswith(("ext-info-", "kex-strict-")))[
        : limits.SSH_NAMES.most
    ]
    words = f"{where}: sshd and pccpipe have no {_NOUNS[kind]} in common: sshd offers {offers or 'nothing'};"
    words += f" pccpipe has {', '.join(ours)}"
    advice = _ADVICE[kind]
    hint = f"on the VM, in /etc/ssh/sshd_config, add {advice} to the line {kind} (without one: {kind} +{advice}),"
    hint += " then sudo systemctl reload ssh"
    return Unavailable(Reason.SSH_INCOMPATIBLE, words, hint)
