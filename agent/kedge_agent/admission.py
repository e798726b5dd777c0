"""Which way of swapping the memory of a board admits. Pure.

The ladder: both engines at once, the new one in a process of its own where its runtime or the board
asks for that; else the old one unloaded first, with a gap that is counted, if the model policy
allows one; else none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Where an engine lives: in the runner's process, or in one of its own.
Isolation = Literal["in-process", "own-process"]
Rung = Literal["beside", "own-process", "gap", "refuse"]

#: Room that is left to the rest of the board, MiB.
RESERVE_MB = 64.0
#: Runtimes estimate what an engine takes from above; what one gives back is taken from below
#: (measured: 5.4 to 8.1 times its file, estimated: 10).
FREED_SHARE = 0.5
#: A process of its own: Python, numpy and the runtime, MiB (measured: 71 with ONNX Runtime).
HOST_MB = 96.0


@dataclass(frozen=True, kw_only=True)
class Room:
    """What there is and what is needed.

    Attributes:
        needed_mb: What the runtime says that the candidate takes, MiB.
        available_mb: What can still be taken, MiB.
        active_mb: What the runtime says that the active engine takes; 0 without one.
        own_process: The engine gets a process of its own.
    """

    needed_mb: float
    available_mb: float
    active_mb: float = 0.0
    own_process: bool = False


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
    needed = room.needed_mb + RESERVE_MB + (HOST_MB if room.own_process else 0.0)
    told = f"the engine takes {needed:.0f} MiB with a reserve, {room.available_mb:.0f} are free"
    if needed <= room.available_mb:
        return Admission("own-process" if room.own_process else "beside", told)
    freed = room.active_mb * FREED_SHARE
    if needed > room.available_mb + freed:
        alone = ", also without the active one" if room.active_mb else ""
        return Admission("refuse", f"not enough memory: {told}{alone}")
    if not allow_gap:
        return Admission(
            "refuse", f"not enough memory for two engines: {told}; the model policy allows no gap"
        )
    return Admission("gap", f"{told}: the active engine is unloaded first")
