"""Landlock: a process gives up the file system and the network, without being root.

Linux 5.13 and later; https://docs.kernel.org/userspace-api/landlock.html. The system calls have
the same numbers on every architecture. Nothing is handled that the kernel at hand does not know.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_BENEATH = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14
#: Version → file accesses known from it on: all of version 1, renaming across, truncating.
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE}
#: From version 4 on: to bind and to connect TCP.
_NETWORK = 0b11
#: From version 6 on: abstract Unix sockets and signals stay inside.
_SCOPE = 0b11
_READ = _READ_FILE | _READ_DIR
_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64),
    )  # fmt: skip


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Returns what the kernel offers; 0 is nothing."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)))


def restrict(
    readable: Iterable[Path], writable: Iterable[Path], executable: Iterable[Path] = ()
) -> bool:
    """Leaves the calling thread, and those it makes, some files to read and fewer to write.

    Nothing else can be executed, made, removed or renamed any more, and TCP is closed where the
    kernel knows how. The process must have set ``no_new_privs``.

    Args:
        readable: Files and folders with all that is beneath; those that are not there are left out.
        writable: The same, to read and to write into what is there.
        executable: The same, to read and to execute.

    Returns:
        Whether it holds.
    """
    known = version()
    if not known:
        return False
    handled = 0
    for since, accesses in _FILES.items():
        handled |= accesses if known >= since else 0
    wanted = _Ruleset(handled, _NETWORK if known >= 4 else 0, _SCOPE if known >= 6 else 0)
    size = 8 if known < 4 else 16 if known < 6 else ctypes.sizeof(wanted)
    ruleset = int(_libc.syscall(_CREATE_RULESET, ctypes.byref(wanted), size, 0))
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(ruleset, path, _READ & handled)
        for path in writable:
            _allow(ruleset, path, (_READ | _WRITE_FILE) & handled)
        for path in executable:
            _allow(ruleset, path, (_READ | _EXECUTE) & handled)
        return int(_libc.syscall(_RESTRICT_SELF, ruleset, 0)) == 0
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, accesses: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            accesses &= ~_READ_DIR
        rule = _Beneath(accesses, fd)
        _libc.syscall(_ADD_RULE, ruleset, _BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(fd)
