"""Is a stage proven? Pure: facts in, verdict and the sentence an operator reads out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from kedge_shared.api import GateSpec, GateVerdict
from kedge_shared.phases import TERMINAL, Phase
from kedge_shared.protocol import Verdict

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
    """

    device: str
    phase: Phase
    verdict: Verdict
    assigned: float
    confirmed: float | None


@dataclass(frozen=True)
class Decision:
    """What a gate says.

    Attributes:
        verdict: pass, fail or undecided.
        reason: The sentence an operator reads.
    """

    verdict: GateVerdict
    reason: str


def standing(facts: DeploymentFacts, gate: GateSpec, now: float) -> Standing:
    """Says what a deployment counts as; silence is not proof."""
    if facts.phase is Phase.CONFIRMED:
        return Standing.HEALTHY
    if facts.phase in TERMINAL:
        harmful = facts.verdict.cause == "harm" or (
            facts.verdict.cause is None and facts.verdict.code in _BUILD_FAULTS
        )
        return Standing.FAILED if harmful else Standing.UNDECIDED
    silent = now - facts.assigned > gate.silence_seconds
    return Standing.FAILED if silent else Standing.PENDING


def is_silent(facts: DeploymentFacts, gate: GateSpec, now: float) -> bool:
    """Says whether a deployment failed by silence."""
    return facts.phase not in TERMINAL and standing(facts, gate, now) is Standing.FAILED


def judge(gate: GateSpec, cohort: Sequence[DeploymentFacts], now: float) -> Decision:
    """Judges a stage.

    Args:
        gate: What it must prove.
        cohort: Every device that has been assigned so far, this stage's and those before.
        now: Unix seconds.
    """
    if not cohort:
        return Decision("pass", "no device in this stage")
    counts = dict.fromkeys(Standing, 0)
    for each in cohort:
        counts[standing(each, gate, now)] += 1
    failed, healthy = counts[Standing.FAILED], counts[Standing.HEALTHY]
    if failed / len(cohort) > gate.max_failure_share:
        return Decision("fail", _why_failed(gate, cohort, now, failed))
    # Those whose failure the gate bears are not waited for; but nobody's health proves nothing.
    needed = min(gate.min_healthy or max(1, len(cohort) - failed), len(cohort))
    lost = f"; {_first_failure(gate, cohort, now)}" if failed else ""
    if healthy < needed:
        said = f"{healthy} of {needed} devices have proven healthy, {failed} failed"
        if counts[Standing.UNDECIDED]:
            said += f", {counts[Standing.UNDECIDED]} could not decide"
        return Decision("undecided", said + lost)
    since = now - max(each.confirmed or 0.0 for each in cohort)
    if since < gate.soak_seconds:
        left = gate.soak_seconds - since
        return Decision("undecided", f"{healthy} devices healthy, soaking {left:.0f} s more")
    return Decision("pass", f"{healthy} of {len(cohort)} devices healthy, {failed} failed{lost}")


def _why_failed(gate: GateSpec, cohort: Sequence[DeploymentFacts], now: float, failed: int) -> str:
    return (
        f"{failed} of {len(cohort)} devices failed, {gate.max_failure_share:.0%} is allowed; "
        f"{_first_failure(gate, cohort, now)}"
    )


def _first_failure(gate: GateSpec, cohort: Sequence[DeploymentFacts], now: float) -> str:
    first = next(each for each in cohort if standing(each, gate, now) is Standing.FAILED)
    if is_silent(first, gate, now):
        return f"{first.device} has been silent for {now - first.assigned:.0f} s"
    return f"{first.device}: {first.verdict.code}, {first.verdict.reason}"
