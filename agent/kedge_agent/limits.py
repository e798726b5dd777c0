"""Priorities and memory of this process: what Linux offers, and nothing where it does not."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
from contextlib import suppress
from pathlib import Path

from kedge_agent import cgroups

NICEST = 19
#: Process id of who starts a child, in the child's environment.
PARENT_ENV = "KEDGE_PARENT"
_PR_SET_PDEATHSIG = 1
#: The kernel's score for "kill this one first".
_OOM_FIRST = 1000
#: What a child leaves to the rest of the board, and what it gets at the least, MiB.
_REST_MB = 64.0
_LEAST_CHILD_MB = 64.0
_libc = ctypes.CDLL(None, use_errno=True)


def be_nice_thread(level: int = NICEST) -> None:
    """Lowers the priority of the calling thread; on Linux niceness belongs to the thread."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), level)


def thread_priority() -> int:
    """Returns the niceness of the calling thread."""
    return thread_priority_of(threading.get_native_id())


def thread_priority_of(thread: int) -> int:
    """Returns the niceness of a thread, or of a process's first."""
    return os.getpriority(os.PRIO_PROCESS, thread)


def thread_ids() -> set[int]:
    """Returns the kernel's ids of this process's threads."""
    try:
        return {int(each.name) for each in Path("/proc/self/task").iterdir()}
    except OSError:
        return set()


def restore_priority(threads: set[int], level: int) -> None:
    """Gives threads their priority back.

    A thread pool that a niced thread makes inherits its niceness: an engine loaded in the
    background would serve at the lowest priority for ever.
    """
    for each in threads:
        # Raising is allowed to root and under RLIMIT_NICE only; elsewhere the supervisor starts
        # the runner niced already and there is nothing to give back.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, each, level)


def be_killed_no_sooner(pid: int) -> None:
    """Gives a child this process's own place among those that the kernel kills for memory.

    An engine is loaded as the first of them; one that serves must not go before a candidate does.
    """
    # It may be gone, or have begun at a higher value than it may be lowered to without privilege.
    with suppress(OSError):
        own = Path("/proc/self/oom_score_adj").read_text()
        Path(f"/proc/{pid}/oom_score_adj").write_text(own)


def die_with_parent() -> None:
    """Has the kernel end this process when the one that started it ends.

    It may have ended before this was asked for: an orphan would live beside its successor.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parent = os.environ.get(PARENT_ENV, "")
    if parent and parent != str(os.getppid()):
        os.kill(os.getpid(), signal.SIGKILL)


def be_first_to_be_killed() -> None:
    """Offers this process to the kernel when memory is short."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_FIRST))


def limit_memory(mib: float) -> None:
    """Limits address space and forbids core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if mib > 0:
        limit = int(mib * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def pin(threads: int) -> None:
    """Keeps this process on as many cores as it has threads: the first that it may use."""
    with suppress(OSError):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def give_memory_back() -> None:
    """Returns freed heap to the system; without it 24 swaps grew 95 → 232 MB (measured)."""
    with suppress(AttributeError):
        _libc.malloc_trim(0)


def resident_mb() -> float:
    """Returns resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def total_memory_mb() -> float:
    """Returns the memory of the board, MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20


def spare_memory_mb() -> float:
    """Returns what a child that is not trusted may take, MiB: all that the rest does not need."""
    return max(_LEAST_CHILD_MB, available_memory_mb() - _REST_MB)


def available_memory_mb() -> float:
    """Returns what can still be taken without swapping, of the board and of a container, MiB."""
    found = total_memory_mb()
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found = int(line.split()[1]) / 1024
    contained = cgroups.memory_left_mb()
    return found if contained is None else min(found, contained)
