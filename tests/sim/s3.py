"""S3-compatible storage as a process: moto's server, which knows buckets, ranges and multipart."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

_PATIENCE = 60


def missing() -> str:
    """Returns what keeps the storage from being started here; empty if nothing does."""
    if importlib.util.find_spec("obstore") is None:
        return "obstore is not installed"
    return "" if _command() else "moto's server is not installed: pip install 'kedge[dev]'"


def _command() -> list[str]:
    if importlib.util.find_spec("moto") is not None:
        return [sys.executable, "-m", "moto.server"]
    found = shutil.which("moto_server")
    return [found] if found else []


@dataclass
class Storage:
    """A storage with one bucket, ``kedge``.

    Attributes:
        url: Its endpoint.
        process: It.
    """

    url: str
    process: subprocess.Popen[bytes]

    @property
    def variables(self) -> dict[str, str]:
        """Returns what a server's environment needs to use it."""
        return {
            "AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "KEDGE_SERVER_STORE": "s3://kedge/artifacts",
        }  # fmt: skip

    def names(self) -> list[str]:
        """Returns every object and every upload that was begun."""
        listed = httpx.get(f"{self.url}/kedge?list-type=2").text.split("<Key>")[1:]
        begun = httpx.get(f"{self.url}/kedge?uploads").text.split("<UploadId>")[1:]
        return [each.partition("<")[0] for each in (*listed, *begun)]

    def stop(self) -> None:
        """Ends it."""
        self.process.terminate()
        self.process.wait(_PATIENCE)


@contextmanager
def storage() -> Iterator[Storage]:
    """Runs a storage."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*_command(), "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    found = Storage(f"http://127.0.0.1:{port}", process)
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                httpx.put(f"{found.url}/kedge").raise_for_status()
            except httpx.TransportError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
            else:
                break
        yield found
    finally:
        found.stop()
