"""What the board knows of itself: plain values, no I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from kedge_agent.evidence.summary import Proof
from kedge_agent.local_protocol import Slot, Slots
from kedge_shared.phases import Phase
from kedge_shared.protocol import ManifestRef, Verdict
from kedge_shared.windows import WindowSpec


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """The deployment at hand, or the last one.

    Attributes:
        id: Identifier of the server's.
        rollout: Its rollout.
        intent: install, revert or hold.
        manifest: The build.
        counter: Of the assignment.
        phase: Where it stands.
        retry: An operator wants it despite quarantine.
        release: Version, once the manifest is known.
        slot: Its engine, once everything is fetched.
        verdict: Why it stands there.
        proof: Of the shadow before the swap.
        tracks: Its distinct objects.
        attempts: Starts of a step that a crash or the environment ended.
        builds_ended: Seconds that each build of its plan had when the window closed.
        probation_began: Unix seconds.
        window: When its rollout lets boards be worked on, or ``None`` for any time.
    """

    id: str
    rollout: str
    intent: str
    manifest: ManifestRef
    counter: int
    phase: Phase = Phase.IDLE
    retry: bool = False
    release: str = ""
    slot: Slot | None = None
    verdict: Verdict = Verdict(code="ok")
    proof: Proof = Proof()
    tracks: int = 0
    attempts: int = 0
    builds_ended: tuple[float, ...] = ()
    probation_began: float = 0.0
    window: WindowSpec | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the board decides from.

    Attributes:
        active: Engine that serves.
        previous: Engine to go back to, on disk.
        deployment: At hand, or the last one.
        epoch: Newest of the director.
        counter: Newest accepted assignment.
        quarantine: Engine hash → why it is not taken again.
        newest_time: Latest time there was proof of, Unix seconds.
        bytes_downloaded: Bodies of artifacts, ever.
        accepted: The assignment's envelope, as evidence.
    """

    active: Slot | None = None
    previous: Slot | None = None
    deployment: Deployment | None = None
    epoch: int = 0
    counter: int = 0
    quarantine: dict[str, str] = {}
    newest_time: int = 0
    bytes_downloaded: int = 0
    accepted: dict[str, Any] = {}

    @property
    def slots(self) -> Slots:
        """The runner's view."""
        deployment = self.deployment
        probation = deployment is not None and deployment.phase is Phase.PROBATION
        return Slots(
            active=self.active,
            previous=self.previous,
            probation=probation,
            deployment=deployment.id if deployment else "",
        )


def read_state(body: bytes) -> State:
    """Decodes a stored state; a phase of another version is read as one that rolls back."""
    raw = msgspec.json.decode(body)
    deployment = raw.get("deployment")
    if deployment and deployment["phase"] not in {each.value for each in Phase}:
        reason = f"phase {deployment['phase']} is not known to this version of the agent"
        deployment["phase"] = Phase.ROLLING_BACK.value
        deployment["verdict"] = {"code": "crash", "reason": reason, "cause": "environment"}
    return msgspec.convert(raw, State)
