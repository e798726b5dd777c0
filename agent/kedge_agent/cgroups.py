"""What a container's memory limit leaves: the kernel's own account knows nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class _Files:
    """Names of one version of control groups."""

    limit: str
    used: str
    reclaimable: str


_VERSION_2 = _Files("memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def memory_left_mb(own: Path = _OWN, root: Path = _ROOT) -> float | None:
    """Returns what this process's groups still allow, MiB; ``None`` where nothing limits it.

    Limits hold for all groups beneath, so every group up to the root is asked.
    """
    found = [
        left
        for folder, files in _groups(own, root)
        for each in (folder, *folder.parents)
        if each.is_relative_to(root) and (left := _left(each, files)) is not None
    ]
    return min(found) if found else None


def _groups(own: Path, root: Path) -> list[tuple[Path, _Files]]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            found.append((root / path.lstrip("/"), _VERSION_2))
        elif "memory" in controllers.split(","):
            found.append((root / "memory" / path.lstrip("/"), _VERSION_1))
    return found


def _left(folder: Path, files: _Files) -> float | None:
    try:
        limit = int((folder / files.limit).read_text())
        used = int((folder / files.used).read_text())
        stat = dict(each.split() for each in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        # Not there, or "max".
        return None
    # Pages of files that nobody uses are given up before anybody is killed.
    return max(0.0, (limit - used + int(stat.get(files.reclaimable, 0))) / 2**20)
