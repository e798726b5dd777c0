"""The idle updater: resident memory and CPU of a real process beside a real server.

    python benchmarks/updater.py [--json] [--seconds 60] [--python PYTHON]

What is resident depends on what is installed beside the agent: ``--python`` names the interpreter
of an environment with ``kedge[agent]`` alone, as a board has it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

#: Run by its path, only this folder is searched for modules.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Row, as_object, as_table
from kedge_shared import api, machine
from tests.sim.world import World, world

_POLL_SECONDS = 10.0
_SETTLE_SECONDS = 15.0


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        world(Path(folder), poll_seconds=_POLL_SECONDS) as found,
    ):
        rows = measure(found, options.python, options.seconds)
    print(as_object(machine.describe(), rows) if options.json else as_table(rows, "bare libraries"))


def measure(found: World, python: str, seconds: float) -> list[Row]:
    """Enrols a board, starts its updater anew and looks at it while it has nothing to do."""
    config = configure(found)
    token = found.operator.enrolment_tokens(api.TokenRequest())[0].token
    first = start(python, config, token)
    time.sleep(_SETTLE_SECONDS)
    first.terminate()
    first.wait()
    updater = start(python, config, "")
    try:
        time.sleep(_SETTLE_SECONDS)
        before, began = cpu_seconds(updater.pid), time.monotonic()
        time.sleep(seconds)
        used = (cpu_seconds(updater.pid) - before) / (time.monotonic() - began) * 100
        resident = resident_mb(updater.pid)
    finally:
        updater.terminate()
        updater.wait()
    return [
        Row(name="updater, resident", value=resident, unit="MB", target=45.0,
            holds=resident <= 45.0, against=libraries_mb(python)),
        Row(name=f"updater, CPU at a poll each {_POLL_SECONDS:g} s", value=used, unit="%",
            target=0.5, holds=used < 0.5),
    ]  # fmt: skip


def configure(found: World) -> Path:
    """Writes a board's configuration."""
    folder = found.home / "board"
    folder.mkdir()
    body = {
        "server": found.url, "root": str(found.trust.root), "state_dir": "state",
        "device": "idle", "device_class": "x86-onnxruntime", "poll_seconds": _POLL_SECONDS,
        "source": {"kind": "video", "path": "none.mp4"},
    }  # fmt: skip
    (folder / "agent.yaml").write_text(yaml.safe_dump(body))
    return folder / "agent.yaml"


def start(python: str, config: Path, token: str) -> subprocess.Popen[bytes]:
    """Starts an updater."""
    command = [python, "-m", "kedge_agent.updater", "--config", str(config)]
    return subprocess.Popen(command, env={**os.environ, "KEDGE_ENROL_TOKEN": token})


def cpu_seconds(pid: int) -> float:
    """Returns user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Returns resident memory of a process, MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def libraries_mb(python: str) -> float:
    """Returns what the libraries alone take after their import, MiB."""
    code = (
        "import asyncio, sqlite3, msgspec, yaml, httpx, httpcore, anyio, tuf.ngclient;"
        "print(open('/proc/self/statm').read().split()[1])"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
