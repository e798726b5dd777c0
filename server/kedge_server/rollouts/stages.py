"""The rollout's machine: the table is all there is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from kedge_shared.api import RolloutState


class RolloutEvent(str, Enum):
    """What moves a rollout on."""

    STAGE_PASSED = "stage_passed"  # and there is another one
    LAST_PASSED = "last_passed"
    GATE_FAILED = "gate_failed"
    LATE_FAILURE = "late_failure"  # a device rolled back after the gate had passed
    PAUSE = "pause"
    RESUME = "resume"
    HALT = "halt"


TRANSITIONS: Mapping[tuple[RolloutState, RolloutEvent], RolloutState] = MappingProxyType(
    {
        ("running", RolloutEvent.STAGE_PASSED): "running",
        ("running", RolloutEvent.LAST_PASSED): "completed",
        ("running", RolloutEvent.GATE_FAILED): "halted",
        ("running", RolloutEvent.PAUSE): "paused",
        ("running", RolloutEvent.HALT): "halted",
        ("paused", RolloutEvent.RESUME): "running",
        ("paused", RolloutEvent.HALT): "halted",
        ("paused", RolloutEvent.GATE_FAILED): "halted",
        ("completed", RolloutEvent.LATE_FAILURE): "halted",
        ("completed", RolloutEvent.HALT): "halted",
    }
)


def advance(state: RolloutState, event: RolloutEvent) -> RolloutState | None:
    """Returns the state after ``event``, or ``None`` if the table has no such step."""
    return TRANSITIONS.get((state, event))
