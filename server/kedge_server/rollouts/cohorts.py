"""Who is in which stage. Pure.

Devices are ranked by a hash within their class, and a stage takes the ceiling of its percentage
of each class. A threshold on the hash itself would leave 20 % of five boards empty one time in
three.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence


def rank(salt: str, device: str) -> str:
    """Returns what devices are ordered by; salted, so that no board is first in every rollout."""
    return hashlib.sha256(f"{salt}/{device}".encode()).hexdigest()


def assign_stages(
    salt: str, device_classes: Mapping[str, str], percents: Sequence[float]
) -> dict[str, int]:
    """Returns device → zero-based stage; devices beyond the last percentage are left out.

    Args:
        salt: The rollout.
        device_classes: Device → class.
        percents: Cumulative, growing.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for device, device_class in device_classes.items():
        groups[device_class].append(device)
    stages: dict[str, int] = {}
    for devices in groups.values():
        ordered = sorted(devices, key=lambda each: rank(salt, each))
        done = 0
        for stage, percent in enumerate(percents):
            upto = min(len(ordered), math.ceil(round(len(ordered) * percent / 100, 9)))
            for device in ordered[done:upto]:
                stages[device] = stage
            done = max(done, upto)
    return stages
