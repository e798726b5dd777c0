"""When the loop cannot be mended from inside. Pure.

A thread that hangs in a runtime cannot be ended, and a context that a device lost (a GPU that
fell off, a driver that was reset) fails for ever: both take a new process. The supervisor starts
it, waiting longer each time; in probation the starts are counted and the older engine comes back.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A frame that takes longer hangs.
STALL_SECONDS = 20.0
#: An engine that has failed on every frame for so long, and on so many, is lost.
FAILING_SECONDS = 20.0
_FAILING_ERRORS = 10


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """How the loop is.

    Attributes:
        busy_seconds: Since the frame at hand was begun; 0 between frames.
        failing_seconds: Since the first of the errors in a row; 0 without.
        errors_in_a_row: Frames on which the engine failed since its last answer.
        gone: The process of the engine ended, and no other engine is there.
        alive: Its thread runs.
    """

    busy_seconds: float = 0.0
    failing_seconds: float = 0.0
    errors_in_a_row: int = 0
    gone: bool = False
    alive: bool = True


def lost(pulse: Pulse) -> str:
    """Says why the process must be started again; empty while it need not."""
    if not pulse.alive:
        return "the loop has ended"
    if pulse.gone:
        return "the engine's process has ended"
    if pulse.busy_seconds > STALL_SECONDS:
        return "the engine hangs"
    if pulse.failing_seconds > FAILING_SECONDS and pulse.errors_in_a_row >= _FAILING_ERRORS:
        return f"the engine failed on {pulse.errors_in_a_row} frames in a row"
    return ""
