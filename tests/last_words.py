"""What a test process says last is shown although it dies of it: glibc's own line, a vendor's.

pytest keeps what a test writes to standard error in a file without a name, which goes with the
process. A keeper has the same file open, outlives the process, and shows the end of it.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

#: ``DESCRIPTOR PID``; a byte on standard input is a goodbye, its end without one is a death.
_KEEPER = """
import os, sys
said, pid = map(int, sys.argv[1:])
if not sys.stdin.buffer.read(1):
    tail = os.pread(said, 4000, max(0, os.fstat(said).st_size - 4000))
    os.write(2, b"\\n-- process %d ended by itself; it had said: " % pid + (tail or b"nothing\\n"))
"""


class LastWords:
    """A plugin of pytest: one keeper a process, from the first test on."""

    def __init__(self) -> None:
        self._stderr = os.dup(2)  # before pytest puts its file there
        self._keeper: subprocess.Popen[bytes] | None = None

    def pytest_runtest_setup(self) -> None:
        """Standard error is pytest's file by now; with ``-s`` it is not, and nothing is lost."""
        if self._keeper is None and stat.S_ISREG(os.fstat(2).st_mode):
            said = os.dup(2)
            self._keeper = subprocess.Popen(
                [sys.executable, "-ISc", _KEEPER, str(said), str(os.getpid())],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._stderr,
                pass_fds=(said,), start_new_session=True,
            )  # fmt: skip
            os.close(said)

    def pytest_unconfigure(self) -> None:
        os.close(self._stderr)
        if self._keeper is not None:
            self._keeper.communicate(b".")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LastWords(), "last-words")
