"""Who is in which stage. Pure.

Devices are ranked by a hash within their class, and a stage takes the ceiling of its percentage
of each class. A threshold on the hash itself would leave 20 % of five boards empty one time in
three.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How large a stage is; exactly one is given.

    Attributes:
        percent: Of each class, cumulative.
        count: Of each class, cumulative.
        members: Devices, whatever their number.
    """

    percent: float | None = None
    count: int | None = None
    members: Collection[str] | None = None

    def upto(self, devices: int) -> int:
        """Returns how many of a class's ``devices`` have the release after this stage."""
        if self.count is not None:
            return min(devices, self.count)
        return min(devices, math.ceil(round(devices * (self.percent or 0) / 100, 9)))


def rank(salt: str, device: str) -> str:
    """Returns what devices are ordered by; salted, so that no board is first in every rollout."""
    return hashlib.sha256(f"{salt}/{device}".encode()).hexdigest()


def assign_stages(
    salt: str,
    device_classes: Mapping[str, str],
    sizes: Sequence[Size],
    risks: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Returns device → zero-based stage; devices beyond the last size are left out.

    Args:
        salt: The rollout.
        device_classes: Device → class.
        sizes: Of the stages; percents and counts grow.
        risks: Device → place in the order of risk, least first; none is 0.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for device, device_class in device_classes.items():
        groups[device_class].append(device)
    stages: dict[str, int] = {}
    for devices in groups.values():
        ordered = sorted(devices, key=lambda each: rank(salt, each))
        if risks:
            # Sorting keeps the order of equals.
            ordered.sort(key=lambda each: risks.get(each, 0))
        _fill(ordered, sizes, stages)
    return stages


def _fill(ordered: Sequence[str], sizes: Sequence[Size], stages: dict[str, int]) -> None:
    """Puts the devices of one class into stages."""
    left = list(ordered)
    for stage, size in enumerate(sizes):
        if size.members is not None:
            taken = [each for each in left if each in size.members]
        else:
            taken = left[: max(0, size.upto(len(ordered)) - (len(ordered) - len(left)))]
        stages.update(dict.fromkeys(taken, stage))
        mine = set(taken)
        left = [each for each in left if each not in mine]


def place(device: str, counts: Sequence[int], sizes: Sequence[Size]) -> int | None:
    """Returns the stage of a device that joins; sizes are those of the class with it.

    Who is in a stage stays there: the first stage that has too few takes the newcomer.

    Args:
        device: Who joins.
        counts: Devices of its class in each stage so far, and beyond the last.
        sizes: Of the stages.

    Returns:
        The stage, or ``None`` where all are full and the last is not the whole class.
    """
    devices, reached = sum(counts) + 1, 0
    for stage, (count, size) in enumerate(zip(counts, sizes, strict=False)):
        reached += count
        wanted = device in size.members if size.members is not None else (
            reached < size.upto(devices)
        )  # fmt: skip
        if wanted:
            return stage
    return None
