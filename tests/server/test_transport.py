"""Plain HTTP beyond this machine, and TLS of the server's own."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kedge_builder.publishing import keys
from kedge_server.transport import PlainHttpRefusal, is_local
from kedge_shared.errors import InputError
from tests.waiting import PATIENCE


@pytest.mark.parametrize(
    ("address", "scheme", "taken"),
    [
        ("127.0.0.1", "http", True), ("127.8.8.8", "http", True), ("::1", "http", True),
        ("::ffff:127.0.0.1", "http", True), ("192.0.2.7", "http", False),
        ("2001:db8::1", "http", False), ("::ffff:192.0.2.7", "http", False),
        ("localhost.example", "http", False), ("192.0.2.7", "https", True),
        ("172.18.0.1", "http", True), ("172.19.0.1", "http", False),
    ],
)  # fmt: skip
def test_plain_http_from_elsewhere_is_refused(address: str, scheme: str, taken: bool) -> None:
    reached, sent = [], []

    async def app(*_: Any) -> None:
        reached.append(True)

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read of it")

    scope = {"type": "http", "scheme": scheme, "client": (address, 1)}
    asyncio.run(PlainHttpRefusal(app, "172.18.0.0/16")(scope, receive, send))
    assert bool(reached) is taken
    assert [each.get("status") for each in sent[:1]] == ([] if taken else [403])


def test_a_unix_socket_is_local_and_a_network_that_is_none_is_named() -> None:
    assert is_local(None)
    with pytest.raises(InputError, match="KEDGE_SERVER_PLAIN_HTTP_FROM: nowhere is no network"):
        PlainHttpRefusal(lambda *_: None, "nowhere")  # type: ignore[arg-type, return-value]


def own_address() -> str:
    """Returns an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        try:
            line.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address beside loopback")
        return str(line.getsockname()[0])


def certificate(folder: Path, *addresses: str) -> tuple[Path, Path]:
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kedge")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
            ), critical=False,
        )
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / "tls.pem", folder / "tls.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )  # fmt: skip
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_others_reach_speaks_tls_or_refuses(tmp_path: Path, tls: bool) -> None:
    address = own_address()
    keys.create(tmp_path / "trust")
    with socket.create_server((address, 0)) as line:
        port = line.getsockname()[1]
    env = dict(os.environ)
    verify: Any = True
    if tls:
        chain, key = certificate(tmp_path, address)
        env |= {"KEDGE_SERVER_TLS_CERTIFICATE": str(chain), "KEDGE_SERVER_TLS_KEY": str(key)}
        verify = ssl.create_default_context(cafile=str(chain))
    command = [sys.executable, "-m", "kedge_shared.cli", "server", "run"]
    command = [sys.executable, "-c", "from kedge_shared.cli import main; main()", *command[3:]]
    server = subprocess.Popen(
        [*command, "--data", str(tmp_path / "data"), "--trust", str(tmp_path / "trust"),
         "--host", address, "--port", str(port)], env=env,
    )  # fmt: skip
    url = f"{'https' if tls else 'http'}://{address}:{port}"
    try:
        answer = reached(url, verify)
        assert answer.status_code == (200 if tls else 403)
        assert tls or "plain HTTP beyond this machine" in answer.json()["error"]
    finally:
        server.terminate()
        server.wait(PATIENCE)


def reached(url: str, verify: Any) -> httpx.Response:
    for _ in range(600):
        try:
            return httpx.get(f"{url}/healthz", verify=verify, timeout=PATIENCE)
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError("the test's server does not start")
