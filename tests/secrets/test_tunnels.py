"""Tunnels of `egress:`: their first bytes and their targets, with the real TLS of this Python on both sides."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pccpipe import limits
from pccpipe.machine.local_stream import LocalStream
from pccpipe.secrets.proxy import egress, hello, ranges
from pccpipe.secrets.proxy.grant import Grant
from pccpipe.secrets.proxy.hello import HelloScreen, RefusedHelloError
from pccpipe.secrets.proxy.meter import Meter, ModelUse
from tests.growth import is_linear

NAME = "files.example.org"


def real(name: str | None) -> bytes:
    """Return the ClientHello of this Python's OpenSSL."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


def field(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + field(2, content)


def sni(*names: str) -> bytes:
    return extension(0, field(2, b"".join(b"\0" + field(2, name.encode()) for name in names)))


def message(*extensions: bytes) -> bytes:
    body = b"\3\3" + bytes(32) + field(1, b"") + field(2, b"\x13\x01") + field(1, b"\0")
    return b"\1" + field(3, body + field(2, b"".join(extensions)))


def record(data: bytes) -> bytes:
    return b"\x16\3\1" + field(2, data)


def made(*extensions: bytes) -> bytes:
    return record(message(*extensions))


@pytest.mark.parametrize(
    "data",
    [real(NAME), made(sni(NAME)), made(sni(NAME.upper())), made(sni(NAME + "."))],
    ids=["openssl", "least", "capitals", "dot"],
)
def test_a_hello_for_the_host_passes_in_any_pieces(data: bytes) -> None:
    assert HelloScreen(NAME, plain=False).from_client(data) == data
    screen = HelloScreen(NAME, plain=False)
    assert b"".join(screen.from_client(data[at : at + 1]) for at in range(len(data))) == data
    records = b"".join(record(data[5 + at : 6 + at]) for at in range(len(data) - 5))
    assert HelloScreen(NAME, plain=False).from_client(records) == records


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (real("evil.example.org"), "is for 'evil.example.org'"),
        (real(None), "names no server"),
        (made(), "names no server"),
        (made(sni(f"x.{NAME}")), "is for"),
        (made(sni(NAME + "\0.evil")), "is for"),
        (made(sni(NAME, "evil.example")), "is for"),
        (made(sni(NAME), sni("evil.example")), "twice"),
        (made(extension(0, b"")), "malformed"),
        (made(sni(NAME), extension(0xFE0D, b"x" * 100)), "ECH"),
        (made(extension(0xFFCE, b"x"), sni(NAME)), "ESNI"),
        (made(sni(NAME)) + b"GET / HTTP/1.1", "before the server answers"),
        (made(sni(NAME)) + real("evil.example.org"), "before the server answers"),
        (record(message(sni(NAME)) + message(sni("evil.example"))), "followed by more data"),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "not TLS"),
        (b"\x80\x2e\1\3\1", "not TLS"),
        (b"\x16\3\1\0\0" * 9, "not TLS"),
        (b"\x16\3\1\xff\xff", "not TLS"),
        (record(b"\2" + field(3, b"x" * 50)), "ClientHello"),
        (record(b"\1\xff\xff\xff"), "exceeds the limit of 16 KiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_a_hello_for_another_host_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(RefusedHelloError, match=words):
        HelloScreen(NAME, plain=False).from_client(data)


def test_an_address_needs_no_server_name() -> None:
    assert HelloScreen("192.0.2.1", plain=False).from_client(real(None))
    with pytest.raises(RefusedHelloError, match="is for"):
        HelloScreen("192.0.2.1", plain=False).from_client(real(NAME))


def test_a_hello_in_endless_pieces_is_limited_and_costs_little() -> None:
    screen = HelloScreen(NAME, plain=False)
    data = record(b"\1" + (limits.CLIENT_HELLO.most - 4).to_bytes(3, "big")) + record(b"x") * 10_000
    assert not any(screen.from_client(data[at : at + 1]) for at in range(limits.CLIENT_HELLO.most))
    with pytest.raises(RefusedHelloError, match="16 KiB"):
        screen.from_client(data[limits.CLIENT_HELLO.most :][:1])

    def send(pieces: int) -> None:
        screen = HelloScreen(NAME, plain=False)
        for at in range(pieces):
            screen.from_client(data[at : at + 1])

    assert is_linear(send, limits.CLIENT_HELLO.most // 8)


def test_no_bytes_raise_another_error() -> None:
    chance = random.Random(14)
    whole = real(NAME)
    for _ in range(20_000):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        with contextlib.suppress(RefusedHelloError):
            HelloScreen(NAME, plain=False).from_client(bytes(data[: chance.randrange(len(data) + 1)]))


RETRY = record(b"\2\0\0\x50\3\3" + hello._RETRY + bytes(40))


@pytest.mark.parametrize("changed", [b"", bytes.fromhex("140303000101")])
def test_a_second_hello_must_be_for_the_host_too(changed: bytes) -> None:
    for name in (NAME, "evil.example"):
        screen = HelloScreen(NAME, plain=False)
        screen.from_client(made(sni(NAME)))
        for at in range(len(RETRY)):
            screen.from_server(RETRY[at : at + 1])
        data = changed + made(sni(name))
        if name == NAME:
            assert b"".join(screen.from_client(data[at : at + 1]) for at in range(len(data))) == data
            assert screen.from_client(b"what follows is secret") == b"what follows is secret"
        else:
            with pytest.raises(RefusedHelloError, match=r"evil\.example"):
                screen.from_client(data)


class Tunnel:
    """A tunnel to a server that records what reaches it."""

    def __init__(self, entry: str, host: str, port: int, serve: Callable[[socket.socket], None]) -> None:
        self.warnings: list[str] = []
        grant = Grant((), (entry,), Meter(None, ModelUse(), lambda _: None), self.warnings.append)
        self.client, inner = socket.socketpair()
        outer, self.server = socket.socketpair()
        self.client.settimeout(10)
        self.server.settimeout(10)
        pumped = (LocalStream(inner), outer, grant, host, port)
        self._threads = [
            threading.Thread(target=self._serve, args=(serve,), daemon=True),
            threading.Thread(target=self._pump, args=pumped, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _pump(self, inner: LocalStream, outer: socket.socket, grant: Grant, host: str, port: int) -> None:
        with contextlib.closing(outer), contextlib.closing(inner), contextlib.suppress(OSError):
            egress.pump(inner, outer, b"", grant, host, port)

    def _serve(self, serve: Callable[[socket.socket], None]) -> None:
        with contextlib.closing(self.server):
            serve(self.server)

    def close(self) -> None:
        self.client.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    number = x509.random_serial_number()
    made = x509.CertificateBuilder(who, who, key.public_key(), number, now, now + timedelta(days=1))
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    # A curve that the client does not guess, so the server asks for a second ClientHello.
    context.set_ecdh_curve("secp521r1")
    return context


def wait(connected: socket.socket) -> None:
    """Serve nothing until the tunnel ends."""
    connected.recv(1)


@contextlib.contextmanager
def opened(entry: str, host: str, port: int, serve: Callable[[socket.socket], None]) -> Iterator[Tunnel]:
    tunnel = Tunnel(entry, host, port, serve)
    try:
        yield tunnel
    finally:
        tunnel.close()


def test_real_tls_passes_even_with_a_second_hello(certificate: ssl.SSLContext) -> None:
    def serve(connected: socket.socket) -> None:
        with certificate.wrap_socket(connected, server_side=True) as safe:
            safe.sendall(safe.recv(100).upper())

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with opened(NAME, NAME, 443, serve) as tunnel:
        with context.wrap_socket(tunnel.client, server_hostname=NAME) as safe:
            safe.sendall(b"hello")
            assert safe.recv(100) == b"HELLO"
        assert tunnel.warnings == []


@pytest.mark.parametrize(
    "sent", [real("evil.example.org"), b"GET / HTTP/1.1\r\nHost: evil.example.org\r\n\r\n"], ids=["name", "plain"]
)
def test_nothing_of_a_refused_tunnel_reaches_the_server(sent: bytes) -> None:
    reached: list[bytes] = []
    with opened(NAME, NAME, 443, lambda connected: reached.append(connected.recv(100))) as tunnel:
        tunnel.client.sendall(sent)
        assert tunnel.client.recv(100) == hello.ALERT_UNRECOGNIZED_NAME
        assert tunnel.client.recv(100) == b""
    assert reached == [b""]
    (warning,) = tunnel.warnings
    assert warning.startswith(f"the tunnel to {NAME}:443 was cut: ")


def test_an_early_second_hello_waits_for_the_answer_and_is_checked() -> None:
    good = made(sni(NAME))
    reached: list[bytes] = []

    def serve(connected: socket.socket) -> None:
        reached.append(connected.recv(1000))
        connected.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            reached.append(connected.recv(1000))
        connected.settimeout(10)
        connected.sendall(RETRY)
        reached.append(connected.recv(1000))

    with opened(NAME, NAME, 443, serve) as tunnel:
        tunnel.client.sendall(good)
        time.sleep(0.2)
        tunnel.client.sendall(made(sni("evil.example")))
        assert tunnel.client.recv(len(RETRY), socket.MSG_WAITALL) == RETRY
        assert tunnel.client.recv(1000) == hello.ALERT_UNRECOGNIZED_NAME
    assert reached == [good, b""]


def test_a_tunnel_without_a_hello_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "HELLO_SECONDS", 0.3)
    with opened(NAME, NAME, 443, wait) as tunnel:
        tunnel.client.sendall(b"\x16")
        assert tunnel.client.recv(100) == hello.ALERT_UNRECOGNIZED_NAME
        assert "no ClientHello in" in tunnel.warnings[0]


def test_a_named_port_may_use_no_tls_and_its_server_may_speak_first() -> None:
    def serve(connected: socket.socket) -> None:
        connected.sendall(b"SSH-2.0-server\r\n")
        connected.sendall(connected.recv(100))

    with opened(f"{NAME}:22", NAME, 22, serve) as tunnel:
        assert tunnel.client.recv(100) == b"SSH-2.0-server\r\n"
        tunnel.client.sendall(b"SSH-2.0-client\r\n")
        assert tunnel.client.recv(100) == b"SSH-2.0-client\r\n"
    with opened(f"{NAME}:8443", NAME, 8443, wait) as tunnel:
        tunnel.client.sendall(real("evil.example.org"))
        assert tunnel.client.recv(100) == hello.ALERT_UNRECOGNIZED_NAME


@pytest.mark.parametrize("entry", [NAME, f"{NAME}:443", f"{NAME}:80"])
def test_web_ports_have_no_plain_tunnels(entry: str) -> None:
    port = 80 if entry.endswith(":80") else 443
    with opened(entry, NAME, port, wait) as tunnel:
        tunnel.client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert tunnel.client.recv(100) == hello.ALERT_UNRECOGNIZED_NAME


NOT_PUBLIC = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.0.0.1", "127.9.9.9"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1"),
    *("192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
    *("239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::8.8.8.8", "::ffff:127.0.0.1"),
    *("::ffff:0:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "2001::1"),
    *("2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "2002:7f00:1::", "3fff::1"),
    *("5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1"),
)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_with_a_special_purpose_are_not_public(address: str) -> None:
    assert not ranges.is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.255"),
        *("::ffff:8.8.8.8", "64:ff9b::808:808", "2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "2a00::1"),
    ],
)
def test_neighbouring_addresses_are_public(address: str) -> None:
    assert ranges.is_public(address)


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Make every name resolve to these addresses; return a list of the connections."""
    asked: list[str] = []
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    def connect(where: tuple[str, int], **_: object) -> socket.socket:
        asked.append(where[0])
        raise OSError("not in a test")

    monkeypatch.setattr(socket, "create_connection", connect)
    return asked


def test_one_private_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolve(monkeypatch, "8.8.8.8", "169.254.169.254")
    with pytest.raises(egress.RefusedAddressError, match=r"169\.254\.169\.254"):
        egress.connect([NAME], NAME, 443)
    assert asked == []


def test_a_public_address_of_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "is_public", lambda _: True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(egress.RefusedAddressError, match="this machine"):
            egress.connect([f"localhost:{port}"], "localhost", port)
        egress.connect([f"localhost:{port}", f"127.0.0.1:{port}"], "localhost", port).close()
