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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the line is glibc's")
@pytest.mark.parametrize("more", [(), ("-n", "1")])
def test_what_glibc_says_at_the_end_of_a_process_is_shown(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_dies.py").write_text(_TESTS)
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *more, "test_dies.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "it had said: free(): invalid pointer" in done.stdout + done.stderr
    assert "test_of_a_heap_that_was_harmed" in done.stdout + done.stderr


def test_a_process_that_ends_well_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_lives.py").write_text("def test_it(): print('well')\n")
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_lives.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert "ended by itself" not in done.stdout + done.stderr
