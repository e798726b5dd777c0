"""The demo's processes: each is ended by its own handle, and none outlives the demo."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import httpx

KEDGE = Path(sys.executable).with_name("kedge")
_STOP_SECONDS = 8.0


class Processes:
    """Starts processes with a log file each and stops them all on leaving.

    Args:
        logs: Folder for their output.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()

    def start(self, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        """Starts ``kedge`` with ``arguments`` in a session of its own, so that Ctrl-C is ours.

        A name that ended may be started again.
        """
        if name in self._running:
            self._running.pop(name).wait()
        with (self.logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [str(KEDGE), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    def pid(self, name: str) -> int:
        """Returns a process's id, which is its session's too."""
        return self._running[name].pid

    def alive(self, name: str) -> bool:
        """Says whether a process still runs."""
        return self._running[name].poll() is None

    def tail(self, name: str, lines: int = 8) -> str:
        """Returns the last lines of a process's log."""
        text = (self.logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop_all(self) -> None:
        """Ends everything: asks first, then by force. A second Ctrl-C does not stop it."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._stop_all()
        finally:
            signal.signal(signal.SIGINT, before)

    def _stop_all(self) -> None:
        for process in reversed(list(self._running.values())):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # The session that start() made is the process and what it started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._running.clear()


def run(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Runs ``kedge`` to its end and returns what it printed.

    Raises:
        SystemExit: It failed; its own error line was shown.
    """
    result = subprocess.run(
        [str(KEDGE), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        check=False,
    )
    if result.returncode:
        sys.stderr.write(result.stderr)
        raise SystemExit(result.returncode)
    return result.stdout


def free_port() -> int:
    """Returns a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_server(url: str, processes: Processes, seconds: float = 120.0) -> None:
    """Waits until the server answers.

    Raises:
        SystemExit: It ended or did not come up; its log was shown.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and processes.alive("server"):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/healthz", timeout=2).is_success:
                return
        time.sleep(0.1)
    sys.stderr.write(f"demo: the server did not come up:\n{processes.tail('server')}\n")
    raise SystemExit(1)
