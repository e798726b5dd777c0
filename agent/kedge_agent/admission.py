"""Which way of swapping the memory of a board admits. Pure.

The ladder: both engines at once; else the old one unloaded first, with a gap that is counted, if
the model policy allows one; else none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rung = Literal["beside", "gap", "refuse"]

#: Room that is left to the rest of the board, MiB.
RESERVE_MB = 64.0
#: Runtimes estimate what an engine takes from above; what one gives back is taken from below
#: (measured: 5.4 to 8.1 times its file, estimated: 10).
FREED_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Room:
    """What there is and what is needed.

    Attributes:
        needed_mb: What the runtime says that the candidate takes, MiB.
        available_mb: What can still be taken, MiB.
        active_mb: What the runtime says that the active engine takes; 0 without one.
    """

    needed_mb: float
    available_mb: float
    active_mb: float = 0.0


@dataclass(frozen=True)
class Admission:
    """The rung, and the sentence that explains it."""

    rung: Rung
    reason: str


def choose_rung(room: Room, *, allow_gap: bool) -> Admission:
    """Says how a candidate is brought in.

    Args:
        room: Memory.
        allow_gap: Whether the model policy allows that frames are lost.
    """
    needed = room.needed_mb + RESERVE_MB
    told = f"the engine takes {needed:.0f} MiB with a reserve, {room.available_mb:.0f} are free"
    if needed <= room.available_mb:
        return Admission("beside", told)
    freed = room.active_mb * FREED_SHARE
    if needed > room.available_mb + freed:
        alone = ", also without the active one" if room.active_mb else ""
        return Admission("refuse", f"not enough memory: {told}{alone}")
    if not allow_gap:
        return Admission(
            "refuse", f"not enough memory for two engines: {told}; the model policy allows no gap"
        )
    return Admission("gap", f"{told}: the active engine is unloaded first")
