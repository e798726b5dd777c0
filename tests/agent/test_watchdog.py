"""systemd: told that the agent is up, and that it goes on being so."""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from kedge_agent import supervisor, watchdog
from tests.waiting import PATIENCE

UNIT = Path(__file__).parents[2] / "agent" / "kedge-agent.service"


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_arrives(tmp_path: Path, abstract: bool) -> None:
    name = f"@kedge-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(PATIENCE)
        assert watchdog.notify("READY=1", {"NOTIFY_SOCKET": name})
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens", "tcp:1"])
def test_without_a_manager_nothing_happens(address: str) -> None:
    assert not watchdog.notify("READY=1", {"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_how_often(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog.interval_seconds(environment) == seconds


def test_the_supervisor_goes_on_telling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(PATIENCE)
        monkeypatch.setattr(watchdog.notify, "__defaults__", ({"NOTIFY_SOCKET": name},))
        told = {"WATCHDOG_USEC": "20000"}
        monkeypatch.setattr(watchdog.interval_seconds, "__defaults__", (told,))

        async def scenario() -> list[bytes]:
            beating = asyncio.ensure_future(supervisor._beat())
            heard = [await asyncio.to_thread(manager.recv, 100) for _ in range(4)]
            beating.cancel()
            return heard

        assert asyncio.run(scenario()) == [b"READY=1", *[b"WATCHDOG=1"] * 3]


@pytest.mark.parametrize(
    "devices",
    [
        ("nvidia-frontend", "nvidia-uvm", "nvidia-caps"),  # before driver 550.40
        ("nvidia", "nvidiactl", "nvidia-uvm", "nvidia-caps"),
    ],
)
def test_the_unit_lets_in_a_card_of_every_driver(devices: tuple[str, ...]) -> None:
    """By its names in /proc/devices, which systemd holds against the pattern behind ``char-``."""
    allowed = re.findall(r"^#?DeviceAllow=char-(\S+) rw$", UNIT.read_text(), re.MULTILINE)
    for each in devices:
        assert any(fnmatch.fnmatchcase(each, pattern) for pattern in allowed), each


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_unit_is_one_and_stays_closed(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # With everything that may be uncommented for a board.
    text = re.sub("^#(?=[A-Z][A-Za-z]+=)", "", UNIT.read_text(), flags=re.MULTILINE)
    unit.write_text(text.replace("/opt/kedge/bin/kedge", "/bin/true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout[-300:]
