"""A board of real processes: supervisor, updater, runner, and the preflight child."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from demo.processes import Processes
from kedge_agent.commands.protocol import SOCKET
from kedge_agent.errors import RunnerGone
from kedge_agent.journal import open_read_only
from kedge_agent.local_client import RunnerLink
from kedge_agent.local_protocol import RunnerState
from kedge_agent.state import State

_MODULES = {"runner": "runner", "updater": "updater", "preflight": "preflight_child"}
_TAIL_BYTES = 8192


@dataclass
class RealBoard:
    """One board.

    Attributes:
        processes: Own its supervisor.
        folder: Its configuration, state and sink.
        name: In the fleet.
        settings: Of ``agent.yaml``, beside those that every board has.
    """

    processes: Processes
    folder: Path
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        return self.folder / "state"

    def configure(self, url: str, root: Path, device_class: str) -> None:
        """Writes the configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        body = {
            "server": url, "root": str(root), "state_dir": "state", "device": self.name,
            "device_class": device_class, "sink": {"kind": "jsonl", "path": "frames.jsonl"},
            **self.settings,
        }  # fmt: skip
        (self.folder / "agent.yaml").write_text(yaml.safe_dump(body))

    def start(self, token: str = "") -> None:
        """Starts the agent; it may be started again when its supervisor has ended."""
        env = {"KEDGE_ENROL_TOKEN": token} if token else None
        config = str(self.folder / "agent.yaml")
        self.processes.start(self.name, "agent", "run", "--config", config, env=env)

    def pids(self) -> dict[str, int]:
        """Returns what runs: supervisor, updater, runner, preflight → process id."""
        supervisor = self.processes.pid(self.name)
        found = {"supervisor": supervisor} if self.processes.alive(self.name) else {}
        mine = {supervisor}
        # Children have larger ids than their parents, but for once in 4 million processes.
        for task in sorted(
            int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()
        ):
            with suppress(OSError, IndexError):
                stat = Path(f"/proc/{task}/stat").read_text().rsplit(")", 1)[1].split()
                if int(stat[1]) not in mine or stat[0] == "Z":
                    continue
                mine.add(task)
                words = Path(f"/proc/{task}/cmdline").read_bytes().decode().split("\0")
                for role, module in _MODULES.items():
                    if f"kedge_agent.{module}" in words:
                        found[role] = task
        return found

    def kill(self, *roles: str) -> dict[str, int]:
        """Ends processes by SIGKILL at once; returns those that there were."""
        found = {role: pid for role, pid in self.pids().items() if role in roles}
        for pid in found.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def runner(self) -> RunnerState | None:
        """Returns what the runner says, or ``None`` if it does not answer."""
        try:
            return asyncio.run(RunnerLink(self.state_dir / "runner.sock").state(2))
        except RunnerGone:
            return None

    def desk_answers(self) -> bool:
        """Says whether the updater takes commands, which it does once it has resumed."""
        with socket.socket(socket.AF_UNIX) as line, suppress(OSError):
            line.settimeout(2)
            line.connect(str(self.state_dir / SOCKET))
            line.sendall(b"\n")
            return bool(line.recv(64))
        return False

    def state(self) -> State:
        """Returns what the journal says."""
        return open_read_only(self.state_dir) or State()

    def last_frame(self) -> dict[str, Any] | None:
        """Returns the newest whole line of the sink."""
        with suppress(OSError), (self.folder / "frames.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            for line in reversed(file.read().split(b"\n")[:-1]):
                with suppress(ValueError):
                    found: dict[str, Any] = json.loads(line)
                    return found
        return None

    def serves(self, after: float) -> str:
        """Returns the release of the newest frame, if it came after ``after`` (Unix seconds)."""
        last = self.last_frame()
        return str(last["release"]) if last is not None and last["t"] > after else ""

    def log(self) -> str:
        """Returns the end of its log."""
        return self.processes.tail(self.name, 40)


def wait_until(condition: Any, seconds: float, every: float = 0.05) -> bool:
    """Waits for a condition; says whether it came true."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(every)
    return True
