"""What a child gives up before it touches foreign native code.

An engine is native code to its runtime: its first run happens in a process that has no network,
no files but libraries, no way to more rights and bounded resources. Each wall is put up where the
system allows it; what holds is told, so that nobody has to believe it.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import kedge_agent
import kedge_shared
from kedge_agent import landlock, limits, seccomp

#: A user that owns nothing; the first of these that exists.
_USERS = ("kedge-preflight", "nobody")
#: Threads and processes of that user; libraries want some dozens.
_MOST_PROCESSES = 512
#: Files: engines are copied into sealed memory, and that counts.
_LARGEST_FILE_MB = 4096
#: Address space that interpreter, libraries and thread stacks reserve without using it, MiB.
_RESERVED_MB = 1024
#: What may stand; which of them do depends on kernel and user.
WALLS = ("limits", "network", "privileges", "user", "files", "calls")
_NO_HOME = "/nonexistent"
_NEW_USER, _NEW_NETWORK, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 38, 4
#: Of /proc and /etc no more than libraries ask for: elsewhere in them are secrets of others.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/sys", "/opt/nvidia",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/sys",
    # NVIDIA's driver and CUDA.
    "/proc/driver/nvidia", "/proc/devices", "/proc/modules", "/etc/nv_tegra_release",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/passwd",
    "/etc/nsswitch.conf",
)  # fmt: skip
#: Where the system's programs and their loader lie.
_PROGRAMS = ("/usr", "/lib", "/lib64")
#: Devices of GPUs, which belong to a group on Jetsons and under the DRM: that one stays.
_GPU_DEVICES = ("nvhost-gpu", "nvmap", "nvidia0", "dri/renderD128")
_libc = ctypes.CDLL(None, use_errno=True)


def enter(
    readable: Sequence[Path],
    *,
    memory_mb: float = 0.0,
    cpu_seconds: float = 0.0,
    executable: Sequence[Path] = (),
) -> tuple[str, ...]:
    """Gives up what a trial does not need. To be called before any other thread exists.

    Args:
        readable: Files and folders that it needs beside Python and the system's libraries.
        memory_mb: Memory it may use, MiB; 0 is no limit.
        cpu_seconds: Processor time it may use; 0 is no limit.
        executable: Folders of the program that this process is about to become; the system's are
            then executable too. Without any it becomes none.

    Returns:
        The walls that stand, of :data:`WALLS`.
    """
    os.nice(limits.NICEST)
    os.environ["HOME"] = _NO_HOME  # vendors look there for settings, and stumble over ours
    limits.be_first_to_be_killed()
    _limit(memory_mb, cpu_seconds)
    # Not the folder it was started in, which may hold anything.
    here = Path.cwd()
    named = {*map(Path, (*sys.path, sys.prefix, sys.base_prefix))} - {here, Path()}
    libraries = [*named, *(Path(str(each.__file__)).parent for each in (kedge_agent, kedge_shared))]
    walls = {
        "limits": True,
        "network": _leave_network(),
        "privileges": _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0,
        "user": _change_user(libraries),
        "files": landlock.restrict(
            [*libraries, *map(Path, _SYSTEM), *readable], [Path("/dev")],
            [*map(Path, _PROGRAMS), *executable] if executable else [],
        ),
        # Last: what puts up the others is among what it denies.
        "calls": seccomp.restrict(execute=bool(executable)),
    }  # fmt: skip
    # Both are forgotten when the user changes.
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    limits.die_with_parent()
    return tuple(name for name, stands in walls.items() if stands)


def _limit(memory_mb: float, cpu_seconds: float) -> None:
    limits.limit_memory(memory_mb + _RESERVED_MB if memory_mb > 0 else 0.0)
    wanted = {
        resource.RLIMIT_FSIZE: _LARGEST_FILE_MB * 2**20,
        resource.RLIMIT_NPROC: _MOST_PROCESSES,
        resource.RLIMIT_CPU: int(cpu_seconds) + 1 if cpu_seconds > 0 else resource.RLIM_INFINITY,
    }
    for what, most in wanted.items():
        _, hard = resource.getrlimit(what)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(what, (least, least))


def _leave_network() -> bool:
    """Takes a network of its own that leads nowhere; who is not root needs a user namespace."""
    spaces = _NEW_NETWORK | _NEW_IPC
    if os.geteuid() != 0:
        spaces |= _NEW_USER
    return int(_libc.unshare(spaces)) == 0


def _change_user(libraries: Sequence[Path]) -> bool:
    if os.geteuid() != 0:
        return False
    for name in _USERS:
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            break
    else:
        return False
    if not _reads(user.pw_uid, user.pw_gid, libraries):
        # Installed beneath somebody's home: as another user not even Python would start.
        return False
    try:
        os.setgroups(_gpu_groups())
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except OSError:
        return False
    return True


def _gpu_groups(devices: Path = Path("/dev")) -> list[int]:
    """Returns the groups besides root's that may use this board's GPUs."""
    found = set()
    for each in _GPU_DEVICES:
        with suppress(OSError):
            found.add((devices / each).stat().st_gid)
    return sorted(found - {0})


def _reads(uid: int, gid: int, paths: Sequence[Path]) -> bool:
    there, groups = [each for each in paths if each.exists()], os.getgroups()
    try:
        os.setgroups([])
        os.setegid(gid)
        os.seteuid(uid)
        return all(os.access(each, os.R_OK, effective_ids=True) for each in there)
    except OSError:
        return False
    finally:
        os.seteuid(0)
        os.setegid(0)
        with suppress(OSError):
            os.setgroups(groups)


def main() -> None:
    """Tries the walls in this process and says which of them stand, one a line."""
    sys.stdout.write("".join(f"{each}\n" for each in enter([])))


if __name__ == "__main__":
    main()
