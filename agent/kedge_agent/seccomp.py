"""seccomp: a process gives up system calls that no engine needs, without being root or a library.

https://docs.kernel.org/userspace-api/seccomp_filter.html. What is denied are ways to more rights,
to other processes and into the kernel: they fail with EPERM, everything else goes on as before. An
allow-list would be tighter and would break with the next driver.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_DENY = _ERRNO | errno.EPERM
#: Its flags lie in memory, where a filter cannot look; C libraries fall back to ``clone``.
_UNKNOWN = _ERRNO | errno.ENOSYS
#: Offsets in ``struct seccomp_data``; of the first argument the lower half.
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16
#: Of ``clone``: name spaces of mounts, control groups, hosts, IPC, users, processes, network.
_NEW_SPACES = 0x7E020000
_libc = ctypes.CDLL(None, use_errno=True)

#: Call → number on x86-64, on ARM64; ``None`` where it does not exist. From the kernel's tables.
_DENIED: Mapping[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438), "kcmp": (312, 272),
    "execve": (59, 221), "execveat": (322, 281),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsmount": (432, 432),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "setns": (308, 268), "unshare": (272, 97),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "fanotify_init": (300, 262), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, None), "ioperm": (173, None),
}  # fmt: skip


@dataclass(frozen=True)
class _Architecture:
    """Numbers of one architecture.

    Attributes:
        audit: Its own, as the kernel's audit has it.
        column: In the table of calls.
        socket: Of ``socket``.
        clone: Of ``clone``.
    """

    audit: int
    column: int
    socket: int
    clone: int


_EXECUTES = frozenset({"execve", "execveat"})
_CLONE3 = 435
#: From here on the numbers of x86-64 mean another calling convention (x32).
_X32 = 0x40000000
_ARCHITECTURES: Mapping[str, _Architecture] = {
    "x86_64": _Architecture(0xC000003E, 0, 41, 56),
    "aarch64": _Architecture(0xC00000B7, 1, 198, 220),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def restrict(*, execute: bool = False) -> bool:
    """Leaves the calling thread, and those it makes, no denied call and no socket but Unix ones.

    The process must have set ``no_new_privs``.

    Args:
        execute: It is about to become another program.

    Returns:
        Whether it holds: the kernel has to know filters, and this module the architecture.
    """
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        return False
    code = program(architecture, _EXECUTES if execute else frozenset())
    wanted = _Program(len(code) // 8, code)
    return int(_libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(wanted), 0, 0)) == 0


def program(architecture: _Architecture, spared: Set[str] = frozenset()) -> bytes:
    """Returns the filter in the kernel's form, eight bytes an instruction.

    Args:
        architecture: Whose numbers.
        spared: Calls that are not denied.
    """
    denied = [calls for name, calls in _DENIED.items() if name not in spared]
    return b"".join(struct.pack("=HBBI", *each) for each in _instructions(architecture, denied))


def _instructions(
    known: _Architecture, denied: Sequence[tuple[int | None, int | None]]
) -> Iterator[tuple[int, int, int, int]]:
    """Yields (code, steps if so, steps if not, operand); steps skip what follows."""
    deny = (_RETURN, 0, 0, _DENY)
    yield (_LOAD, 0, 0, _ARCHITECTURE)
    yield (_EQUAL, 1, 0, known.audit)
    yield deny
    yield (_LOAD, 0, 0, _NUMBER)
    yield (_AT_LEAST, 0, 1, _X32)
    yield deny
    for numbers in denied:
        number = numbers[known.column]
        if number is not None:
            yield (_EQUAL, 0, 1, number)
            yield deny
    yield (_EQUAL, 0, 1, _CLONE3)
    yield (_RETURN, 0, 0, _UNKNOWN)
    yield (_EQUAL, 0, 4, known.socket)
    yield (_LOAD, 0, 0, _ARGUMENT)
    yield (_EQUAL, 0, 1, socket.AF_UNIX)
    yield (_RETURN, 0, 0, _ALLOW)
    yield deny
    yield (_EQUAL, 0, 3, known.clone)
    yield (_LOAD, 0, 0, _ARGUMENT)
    yield (_ANY_BIT, 0, 1, _NEW_SPACES)
    yield deny
    yield (_RETURN, 0, 0, _ALLOW)
