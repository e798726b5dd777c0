"""A fleet in a database and a server over it, for the server's benchmarks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from securesystemslib.signer import CryptoSigner
from sqlalchemy import insert
from sqlmodel import Session

from kedge_builder.publishing import keys
from kedge_server.app import open_context
from kedge_server.context import Context
from kedge_server.database import transaction
from kedge_server.devices.tables import DeviceRow
from kedge_server.releases.tables import BuildRow, ReleaseRow
from kedge_server.settings import ServerSettings
from kedge_server.tokens import token_hash
from kedge_shared import signing, wire
from tests.shared import samples

OPERATOR = "operator-token-of-benchmarks"
#: The server's and the load's core.
SERVER_CORE, LOAD_CORE = 0, 1
#: Between two polls of a device.
POLL_SECONDS = 60
_ONE_CLASS = "x86-onnxruntime"
#: Sees to it that a server ends with its benchmark, whatever ends that.
_ORPHAN = "import ctypes; ctypes.CDLL(None).prctl(1, 15)"


@dataclass(frozen=True)
class Fleet:
    """Devices in a database.

    Attributes:
        home: Its folder.
        devices: How many.
        signer: Every device's key.
        database: URL, or empty for SQLite.
    """

    home: Path
    devices: int
    signer: CryptoSigner
    database: str = ""

    @property
    def settings(self) -> ServerSettings:
        """Returns the server's settings."""
        return ServerSettings(
            data=self.home / "server", trust=self.home / "trust",
            operator_token=SecretStr(OPERATOR),
            database=SecretStr(self.database) if self.database else None,
        )  # fmt: skip

    def token(self, at: int) -> str:
        """Returns a device's token."""
        return f"device-token-of-benchmark-{at:017d}"

    def name(self, at: int) -> str:
        """Returns a device's name."""
        return f"cam-{at:06d}"


def seed(home: Path, devices: int, database: str = "") -> Fleet:
    """Makes a fleet in a fresh database."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    keys.create(home / "trust")
    fleet = Fleet(home, devices, signing.generate(), database)
    public = wire.encode(signing.key_to_dict(fleet.signer.public_key)).decode()
    facts = wire.encode(samples.facts()).decode()
    rows = [
        {"id": fleet.name(at), "device_class": _ONE_CLASS, "key_id": fleet.signer.public_key.keyid,
         "public_key": public, "token_hash": token_hash(fleet.token(at)), "facts": facts,
         "tags": f'{{"site":"hall-{at % 50}"}}', "enrolled": 0.0, "release": "", "engine": "",
         "phase": "idle", "frames": 0}
        for at in range(devices)
    ]  # fmt: skip
    context = open_context(fleet.settings)
    with transaction(context.engine) as session:
        session.execute(insert(DeviceRow), rows)
        _publish(session, "1.0", 1)
    close(context)
    return fleet


def _publish(session: Session, release: str, counter: int) -> None:
    manifest = samples.manifest()
    session.add(ReleaseRow(model="shapes", release=release, release_counter=counter, published=0.0))
    session.add(
        BuildRow(model="shapes", release=release, device_class=_ONE_CLASS, manifest_length=1,
                 manifest_path=manifest.target_path, manifest_sha256="a" * 64,
                 manifest=wire.encode(manifest))
    )  # fmt: skip


def close(context: Context) -> None:
    """Lets go of the database."""
    context.engine.dispose()


@dataclass(frozen=True)
class Running:
    """A server process.

    Attributes:
        url: Its address.
        process: It.
    """

    url: str
    process: subprocess.Popen[str]

    @property
    def rss_mb(self) -> float:
        """Returns its resident memory, MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(each for each in text.splitlines() if each.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    @property
    def cpu_seconds(self) -> float:
        """Returns the processor time it took so far, seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def kedge(fleet: Fleet, *options: str, **variables: str) -> Iterator[Running]:
    """Runs ``kedge server run`` on its core, with further options and variables."""
    arguments = ["server", "run", "--data", str(fleet.home / "server"), "--trust",
                 str(fleet.home / "trust"), "--port", "0", "--poll-seconds",
                 str(POLL_SECONDS), *options]  # fmt: skip
    code = f"{_ORPHAN}; from kedge_shared.cli import main; main()"
    environment = {"KEDGE_SERVER_OPERATOR_TOKEN": OPERATOR, **variables}
    if fleet.database:
        environment["KEDGE_SERVER_DATABASE"] = fleet.database
    with _process([sys.executable, "-c", code, *arguments], environment) as running:
        yield running


@contextmanager
def plain() -> Iterator[Running]:
    """Runs an application that answers every poll the same, under the same server, on its core."""
    code = f"{_ORPHAN}; from benchmarks.server_plain import main; main()"
    with _process([sys.executable, "-c", code], {}) as running:
        yield running


@contextmanager
def _process(command: list[str], variables: dict[str, str]) -> Iterator[Running]:
    process = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), *command],
        env={**os.environ, **variables}, cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2].rstrip(",")
        yield Running(url, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
