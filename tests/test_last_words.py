"""A test process that dies says why."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

_CONFTEST = "from tests.last_words import pytest_configure\n"
_TESTS = """
import ctypes

def test_before():
    print("well", flush=True)

def test_of_a_heap_that_was_harmed():
    held = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).free(ctypes.c_void_p(ctypes.addressof(held) + 8))
"""


def run(folder: Path, tests: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Runs tests in a process of their own, without the plugins of ours that take seconds."""
    (folder / "conftest.py").write_text(_CONFTEST)
    (folder / "test_it.py").write_text(tests)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more, "test_it.py"],
        cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the line is glibc's")
@pytest.mark.parametrize("more", [(), ("-p", "xdist.plugin", "-n", "1", "--max-worker-restart=0")])
def test_what_glibc_says_at_the_end_of_a_process_is_shown(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    done = run(tmp_path, _TESTS, *more)
    assert done.returncode != 0
    assert "it had said last: free(): invalid pointer" in done.stdout + done.stderr
    assert "test_of_a_heap_that_was_harmed" in done.stdout + done.stderr


def test_a_process_that_ends_well_says_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_it(): print('well')\n")
    assert done.returncode == 0
    assert "ended before its tests" not in done.stdout + done.stderr
