"""Whom the server may call when somebody names a URL."""

from __future__ import annotations

import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_network
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kedge_server import outbound
from kedge_server.egress import choose, parse
from kedge_server.outbound import post
from kedge_shared.errors import InputError, ServiceError

PUBLIC = "93.184.216.34"
NEVER = [
    "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.1.2.3", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::", "2001:0:7f00:1::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1",
    "192.0.0.1", "198.18.0.1", "::127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", NEVER)
def test_what_only_the_server_can_reach_is_not_called(address: str) -> None:
    with pytest.raises(InputError, match="not to be called"):
        choose(parse("https://hooks.example/x"), [address])


def test_one_bad_address_among_good_ones_is_enough() -> None:
    with pytest.raises(InputError):
        choose(parse("https://hooks.example/x"), [PUBLIC, "127.0.0.1"])


@pytest.mark.parametrize(
    "address", [PUBLIC, "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"]
)
def test_the_internet_is_called(address: str) -> None:
    assert choose(parse("https://hooks.example/x"), [address]).is_global


def test_a_network_that_the_settings_name_is_called_also_in_the_clear() -> None:
    allowed = [ip_network("10.0.0.0/8")]
    assert str(choose(parse("http://hooks.lan:8080/x"), ["10.1.2.3"], allowed)) == "10.1.2.3"
    with pytest.raises(InputError):
        choose(parse("http://hooks.lan:8080/x"), ["192.168.0.1"], allowed)


def test_the_internet_is_not_called_in_the_clear() -> None:
    with pytest.raises(InputError, match="in the clear"):
        choose(parse("http://hooks.example/x"), [PUBLIC])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://hooks.example", "file:///etc/passwd", "https://", "https://u:p@hooks.example/",
        "https://hooks.example/\r\nX: y", "https://hooks.example/ x", "https://h:99999/",
        "gopher://127.0.0.1:6379/_x", "https://hooks.example\\@127.0.0.1/", "https://[::1",
        "hooks.example", "https://hööks.example/", "https://h/" + "x" * 2000,
    ],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        parse(url)


def test_the_connection_goes_to_the_address_that_was_judged() -> None:
    """The name is looked up once; a second answer, as of a rebinding name, is never asked for."""
    answers, asked = [[PUBLIC], ["127.0.0.1"]], []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(204)

    status = post(
        "https://hooks.example:8443/x?y=1", b"{}", {"X-A": "b"},
        find=lambda *_: answers.pop(0), transport=httpx.MockTransport(answer),
    )  # fmt: skip
    assert status == 204
    assert asked[0].url.host == PUBLIC
    assert asked[0].headers["host"] == "hooks.example:8443"
    assert asked[0].extensions["sni_hostname"] == "hooks.example"
    assert len(answers) == 1


def test_redirections_are_not_followed_and_answers_without_end_not_read() -> None:
    read = []

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            read.append(1)
            yield bytes(4096)

    def answer(_: httpx.Request) -> httpx.Response:
        headers = {"Location": "http://169.254.169.254/"}
        return httpx.Response(302, headers=headers, stream=Endless())

    status = post("https://hooks.example/", b"", {}, find=lambda *_: [PUBLIC],
                  transport=httpx.MockTransport(answer))  # fmt: skip
    assert status == 302
    assert not read


def test_a_receiver_that_drips_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbound, "_IN_ALL_SECONDS", 0.5)
    over = Event()

    def drip(listening: socket.socket) -> None:
        taken, _ = listening.accept()
        with taken, suppress(OSError):
            for each in itertools.cycle(b"X-Header: 1\r\n"):
                if over.wait(0.05):
                    return
                taken.sendall(bytes([each]))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        dripping = Thread(target=drip, args=(listening,))
        dripping.start()
        allowed = [ip_network("127.0.0.0/8")]
        with pytest.raises(ServiceError, match="does not answer"):
            post(f"http://127.0.0.1:{listening.getsockname()[1]}/", b"", {}, allowed)
        over.set()
        dripping.join()


def test_no_header_is_injected() -> None:
    allowed = [ip_network("127.0.0.0/8")]
    with pytest.raises((InputError, ServiceError)):
        post("http://127.0.0.1:9/", b"", {"X-A": "b\r\nX-Evil: 1"}, allowed)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[int, Path, list[str]]]:
    """An HTTPS server of hooks.example on this machine, and the authority that vouches for it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hooks.example")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = tmp_path / "both.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )  # fmt: skip
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["Host"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], pem, seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("name", "taken"), [("hooks.example", True), ("other.example", False)])
def test_the_certificate_must_be_the_names_though_the_address_is_called(
    tls: tuple[int, Path, list[str]], name: str, taken: bool
) -> None:
    port, pem, seen = tls
    trusted = ssl.create_default_context(cafile=pem)
    options = {
        "allowed": [ip_network("127.0.0.0/8")], "find": lambda *_: ["127.0.0.1"],
        "transport": httpx.AsyncHTTPTransport(verify=trusted),
    }  # fmt: skip
    if taken:
        assert post(f"https://{name}:{port}/x", b"{}", {}, **options) == 200
        assert seen == [f"hooks.example:{port}"]
        return
    with pytest.raises(ServiceError):
        post(f"https://{name}:{port}/x", b"{}", {}, **options)
    assert not seen
