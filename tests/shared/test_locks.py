"""One process at a time in a folder, and none for ever."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kedge_shared import locks
from kedge_shared.locks import locked
from tests.waiting import PATIENCE


def test_another_process_is_kept_out_until_the_holder_is_gone_however_it_goes(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, time; from pathlib import Path; from kedge_shared.locks import locked\n"
        "with locked(Path(sys.argv[1]), wait=False): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), locked(tmp_path, wait=False):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait(PATIENCE)
        with locked(tmp_path, wait=False):
            assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_file_system_without_locks_keeps_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with locked(tmp_path, wait=False), locked(tmp_path, wait=True):
        pass
