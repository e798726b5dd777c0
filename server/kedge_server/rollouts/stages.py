"""The machines of a rollout and of its stages: the tables are all there is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from kedge_server.rollouts.decision import Decision
from kedge_shared.api import RolloutState, StageState
from kedge_shared.rollouts import StageSpec


class RolloutEvent(str, Enum):
    """What moves a rollout on."""

    START = "start"  # two people said yes
    STAGE_PASSED = "stage_passed"  # and there is another one
    LAST_PASSED = "last_passed"
    GATE_FAILED = "gate_failed"
    LATE_FAILURE = "late_failure"  # a device rolled back after the gate had passed
    OVERDUE = "overdue"  # the deadline is over
    PAUSE = "pause"
    RESUME = "resume"
    HALT = "halt"  # abort; the devices go back
    STOP = "stop"  # abort; the devices keep what they have


TRANSITIONS: Mapping[tuple[RolloutState, RolloutEvent], RolloutState] = MappingProxyType(
    {
        ("proposed", RolloutEvent.START): "running",
        ("proposed", RolloutEvent.HALT): "stopped",
        ("proposed", RolloutEvent.STOP): "stopped",
        ("proposed", RolloutEvent.OVERDUE): "stopped",
        ("running", RolloutEvent.STAGE_PASSED): "running",
        ("running", RolloutEvent.LAST_PASSED): "completed",
        ("running", RolloutEvent.GATE_FAILED): "halted",
        ("running", RolloutEvent.OVERDUE): "stopped",
        ("running", RolloutEvent.PAUSE): "paused",
        ("running", RolloutEvent.HALT): "halted",
        ("running", RolloutEvent.STOP): "stopped",
        ("paused", RolloutEvent.RESUME): "running",
        ("paused", RolloutEvent.HALT): "halted",
        ("paused", RolloutEvent.STOP): "stopped",
        ("paused", RolloutEvent.OVERDUE): "stopped",
        ("paused", RolloutEvent.GATE_FAILED): "halted",
        ("completed", RolloutEvent.LATE_FAILURE): "halted",
        ("completed", RolloutEvent.HALT): "halted",
        ("stopped", RolloutEvent.LATE_FAILURE): "halted",
        ("stopped", RolloutEvent.HALT): "halted",
    }
)


class StageEvent(str, Enum):
    """What moves a stage on."""

    BEGIN = "begin"  # its devices are assigned
    PASS = "pass"  # noqa: S105 - the gate's, not a word that opens a door
    WIDEN = "widen"  # undecided for want of devices: judged together with the next stage's
    ASK = "ask"  # a person must say yes
    APPROVE = "approve"
    REOPEN = "reopen"  # what was asked about is open again: a device joined or was retried
    FAIL = "fail"


STAGE_TRANSITIONS: Mapping[tuple[StageState, StageEvent], StageState] = MappingProxyType(
    {
        ("waiting", StageEvent.BEGIN): "running",
        ("running", StageEvent.PASS): "passed",
        ("running", StageEvent.WIDEN): "widened",
        ("running", StageEvent.ASK): "asking",
        ("running", StageEvent.FAIL): "failed",
        ("asking", StageEvent.APPROVE): "passed",
        ("asking", StageEvent.REOPEN): "running",
        ("asking", StageEvent.FAIL): "failed",
    }
)

#: A stage that is judged.
OPEN: frozenset[str] = frozenset({"running", "asking"})


def advance(state: RolloutState, event: RolloutEvent) -> RolloutState | None:
    """Returns the state after ``event``, or ``None`` if the table has no such step."""
    return TRANSITIONS.get((state, event))


def advance_stage(state: StageState, event: StageEvent) -> StageState | None:
    """Returns the stage's state after ``event``, or ``None`` if the table has no such step."""
    return STAGE_TRANSITIONS.get((state, event))


def step(spec: StageSpec, decision: Decision) -> StageEvent | None:
    """Says what a decision means for its stage; ``None`` is to go on waiting."""
    if decision.verdict == "fail":
        return StageEvent.FAIL
    if decision.verdict == "pass":
        return StageEvent.ASK if spec.approval else StageEvent.PASS
    if not decision.exhausted or spec.gate.sequential is None:
        return None
    wanted = spec.gate.sequential.on_exhausted
    if wanted == "hold":
        return None
    # Nobody is exposed to what the evidence leans against without being asked.
    asks = wanted == "ask" or decision.doubtful or spec.approval
    return StageEvent.ASK if asks else StageEvent.WIDEN


def pools(states: Mapping[int, str], upto: int) -> tuple[tuple[int, ...], ...]:
    """Returns which stages are judged together: one that was widened goes with its follower.

    Args:
        states: Stage → state.
        upto: The stage that is asked about.
    """
    found: list[list[int]] = [[]]
    for index in range(upto + 1):
        found[-1].append(index)
        if states[index] != "widened" and index < upto:
            found.append([])
    return tuple(tuple(each) for each in found)
