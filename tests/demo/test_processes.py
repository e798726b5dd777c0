"""The demo's processes end with it, however impatient whoever stops it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from demo import processes
from demo.processes import Processes

#: Ends half a second after it is asked to.
SLOW = """#!{python}
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(0)))
print("up", flush=True)
time.sleep(60)
"""

STUBBORN = """#!{python}
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(60)
"""

IMPATIENT = """
import os, signal, sys, threading, time
from pathlib import Path
from demo import processes
processes.KEDGE = Path(sys.argv[1])
def interrupt():
    for _ in range(4):
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)
try:
    with processes.Processes(Path(sys.argv[2])) as started:
        started.start("slow")
        while "up" not in started.tail("slow"):
            time.sleep(0.02)
        print(started.pid("slow"), flush=True)
        threading.Thread(target=interrupt, daemon=True).start()
        time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow"
    path.write_text(SLOW.format(python=sys.executable))
    path.chmod(0o700)
    return path


def test_a_second_ctrl_c_leaves_nothing_running(tmp_path: Path, slow: Path) -> None:
    code = [sys.executable, "-c", IMPATIENT, str(slow), str(tmp_path)]
    root = Path(processes.__file__).parents[1]
    done = subprocess.run(code, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
    assert "Traceback" not in done.stderr


def test_what_does_not_want_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = tmp_path / "stubborn"
    stubborn.write_text(STUBBORN.format(python=sys.executable))
    stubborn.chmod(0o700)
    monkeypatch.setattr(processes, "KEDGE", stubborn)
    monkeypatch.setattr(processes, "_STOP_SECONDS", 0.3)
    with Processes(tmp_path) as started:
        started.start("stubborn")
        pid = started.pid("stubborn")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
