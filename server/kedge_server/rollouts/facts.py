"""What a gate knows, and what a deployment counts as. Pure; stored as it is with each decision."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.protocol import Verdict
from kedge_shared.rollouts import GateSpec

#: Refusals that are the build's fault, whatever the agent called their cause.
_BUILD_FAULTS = frozenset({"accuracy", "latency", "fidelity", "crash", "trust", "misfit",
                           "quarantined"})  # fmt: skip


class Standing(str, Enum):
    """What a deployment counts as."""

    HEALTHY = "healthy"  # proof of health on that board
    FAILED = "failed"  # refused or rolled back for harm, or silent
    UNDECIDED = "undecided"  # environment or too little evidence: neither
    PENDING = "pending"  # not final yet


@dataclass(frozen=True)
class DeploymentFacts:
    """What a gate knows of one device.

    Attributes:
        device: For the reason.
        phase: As last reported.
        verdict: As last reported.
        assigned: Unix seconds.
        confirmed: Unix seconds of the proof of health, or ``None``.
        device_class: What it is.
        stage: Zero-based stage that brought it.
        begun: Unix seconds of its first word about it, or of the poll that told it; ``None``
            while it knows nothing of it.
        change: Its p95 of frame time since the proof of health, over its own before; or ``None``.
        latency_p95_ms: Of its last window with the release, or ``None``.
        error_share: Frames on which the engine failed, in that window, or ``None``.
        agreement: Share of the older engine's objects that it saw in probation, or ``None``.
    """

    device: str
    phase: Phase
    verdict: Verdict
    assigned: float
    confirmed: float | None
    device_class: str = ""
    stage: int = 0
    begun: float | None = None
    change: float | None = None
    latency_p95_ms: float | None = None
    error_share: float | None = None
    agreement: float | None = None

    @property
    def took_up(self) -> float | None:
        """Unix seconds since when the release can have done anything to it, or ``None``."""
        if self.begun is not None:
            return self.begun
        return None if self.phase is Phase.IDLE else self.assigned


@dataclass(frozen=True)
class ControlFacts:
    """A device that has not been reached.

    Attributes:
        device: Its name.
        device_class: What it is.
        change: Its p95 of frame time over that when the stage began.
    """

    device: str
    device_class: str
    change: float


@dataclass(frozen=True)
class GateFacts:
    """What a stage is judged by.

    Attributes:
        cohort: Every device that has been assigned so far, this stage's and those before.
        controls: Devices of the same rollout that have not been reached.
        pools: Stages (zero-based) whose devices are judged together, in order; the last pool is
            the one that is asked about. A stage that was widened is in the pool of its follower.
        stages: Of the rollout, among which the chance of error is shared.
    """

    cohort: tuple[DeploymentFacts, ...]
    controls: tuple[ControlFacts, ...] = ()
    pools: tuple[tuple[int, ...], ...] = ((0,),)
    stages: int = 1

    def classes(self) -> dict[str, list[DeploymentFacts]]:
        """Returns the cohort by device class, in the order of names."""
        return by_class(self.cohort)


def by_class(facts: Iterable[DeploymentFacts]) -> dict[str, list[DeploymentFacts]]:
    """Returns devices by class, in the order of names."""
    found: dict[str, list[DeploymentFacts]] = defaultdict(list)
    for each in facts:
        found[each.device_class].append(each)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Silence:
    """When a deployment that has not ended has failed by silence.

    A threshold gate counts the silence from the assignment, also of a board that never asked. A
    test must not take an absent board for a broken one: for it the silence begins when the board
    took the assignment up, and one that did not is neither.

    Attributes:
        from_assignment: It begins with the assignment, else when the board took that up.
        before: Unix seconds: one that began earlier has lasted too long.
    """

    from_assignment: bool
    before: float

    @classmethod
    def of(cls, gate: GateSpec, now: float) -> Silence:
        """Returns a gate's rule; databases are asked by the same (:mod:`.placing`)."""
        return cls(gate.sequential is None, now - gate.silence_seconds)

    def begun(self, facts: DeploymentFacts) -> float | None:
        """Returns when a deployment's silence began, ``None`` if it did not."""
        return facts.assigned if self.from_assignment else facts.took_up

    def failed(self, facts: DeploymentFacts) -> bool:
        """Says whether it has lasted too long, of a deployment that has not ended."""
        since = self.begun(facts)
        return since is not None and since < self.before


def standing(facts: DeploymentFacts, gate: GateSpec, now: float) -> Standing:
    """Says what a deployment counts as; silence is not proof."""
    if facts.phase is Phase.CONFIRMED:
        return Standing.HEALTHY
    if facts.phase in TERMINAL:
        harmful = facts.verdict.cause == "harm" or (
            facts.verdict.cause is None and facts.verdict.code in _BUILD_FAULTS
        )
        return Standing.FAILED if harmful else Standing.UNDECIDED
    return Standing.FAILED if Silence.of(gate, now).failed(facts) else Standing.PENDING


def is_silent(facts: DeploymentFacts, gate: GateSpec, now: float) -> bool:
    """Says whether a deployment failed by silence."""
    return facts.phase not in TERMINAL and standing(facts, gate, now) is Standing.FAILED


def is_absent(facts: DeploymentFacts, gate: GateSpec, now: float) -> bool:
    """Says whether a board is not waited for any more: it never took the assignment up."""
    return facts.took_up is None and now - facts.assigned > gate.silence_seconds


def count(facts: Iterable[DeploymentFacts], gate: GateSpec, now: float) -> Mapping[Standing, int]:
    """Returns how many devices count as what."""
    counts = dict.fromkeys(Standing, 0)
    for each in facts:
        counts[standing(each, gate, now)] += 1
    return counts


def tell_failure(facts: DeploymentFacts, gate: GateSpec, now: float) -> str:
    """Returns how a device failed, for the sentence an operator reads."""
    if is_silent(facts, gate, now):
        since = Silence.of(gate, now).begun(facts)
        return f"{facts.device} has been silent for {now - (since or now):.0f} s"
    return f"{facts.device}: {facts.verdict.code}, {facts.verdict.reason}"
