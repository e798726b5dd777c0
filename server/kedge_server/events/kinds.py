"""What events are called: tables beside those of the state machines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kedge_server.rollouts.stages import RolloutEvent, StageEvent
from kedge_shared.phases import Phase

ROLLOUT_CREATED = "rollout.created"
DEVICE_ENROLLED = "device.enrolled"
DEVICE_CHANGED = "device.changed"
RELEASE_PUBLISHED = "release.published"
SERVER_ALARM = "server.alarm"

ROLLOUT: Mapping[RolloutEvent, str] = MappingProxyType(
    {
        RolloutEvent.START: "rollout.started",
        RolloutEvent.STAGE_PASSED: "rollout.advanced",
        RolloutEvent.LAST_PASSED: "rollout.completed",
        RolloutEvent.GATE_FAILED: "rollout.halted",
        RolloutEvent.LATE_FAILURE: "rollout.halted",
        RolloutEvent.OVERDUE: "rollout.stopped",
        RolloutEvent.PAUSE: "rollout.paused",
        RolloutEvent.RESUME: "rollout.resumed",
        RolloutEvent.HALT: "rollout.halted",
        RolloutEvent.STOP: "rollout.stopped",
    }
)
GATE: Mapping[StageEvent, str] = MappingProxyType(
    {
        StageEvent.BEGIN: "gate.begun",
        StageEvent.PASS: "gate.passed",
        StageEvent.WIDEN: "gate.widened",
        StageEvent.ASK: "gate.asking",
        StageEvent.APPROVE: "gate.approved",
        StageEvent.REOPEN: "gate.reopened",
        StageEvent.FAIL: "gate.failed",
    }
)
#: Where a deployment came to its end; what lies in between is for those who look at one board.
DEVICE: Mapping[Phase, str] = MappingProxyType(
    {
        Phase.CONFIRMED: "device.confirmed",
        Phase.ROLLED_BACK: "device.rolled_back",
        Phase.REFUSED: "device.refused",
    }
)
#: Every one, by name.
KNOWN: tuple[str, ...] = tuple(
    sorted(
        {*ROLLOUT.values(), *GATE.values(), *DEVICE.values(), ROLLOUT_CREATED, DEVICE_ENROLLED,
         DEVICE_CHANGED, RELEASE_PUBLISHED, SERVER_ALARM}
    )
)  # fmt: skip
