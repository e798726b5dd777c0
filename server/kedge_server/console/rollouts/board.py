"""The stage board of a rollout: what each gate asks, says, and says it from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kedge_server.console import words
from kedge_server.console.rollouts.band import band
from kedge_server.rollouts.decision import Finding
from kedge_shared.api import RolloutInfo, StageInfo
from kedge_shared.rollouts import GateSpec, RolloutSpec, SequentialSpec, StageSpec

_MEASURES = {"failures": "failures", "latency": "frame time", "agreement": "agreement"}
_EXHAUSTED = {"hold": "waits for more boards", "ask": "asks a person", "widen": "is widened"}


@dataclass(frozen=True)
class Scale:
    """One measure of one class on its way to a verdict.

    Attributes:
        title: What is measured, of which class.
        verdict: pass, fail, undecided, idle.
        against: Evidence that the class is bad, share of what halts, 0..1.
        for_it: Evidence that it is good, share of what passes, 0..1.
        odds_against: The same as odds, in words.
        odds_for: The same.
        seen: Boards whose outcome is known.
        reason: The sentence.
    """

    title: str
    verdict: str
    against: float
    for_it: float
    odds_against: str
    odds_for: str
    seen: int
    reason: str


@dataclass(frozen=True)
class Card:
    """A stage as people see it.

    Attributes:
        info: Where it stands.
        asks: What its gate asks, sentence by sentence.
        low: Least share of failing boards that was not ruled out.
        high: Largest one.
        known: Boards whose outcome is known.
        scales: What the verdict rests on.
        started: Unix seconds, or ``None``.
        finished: Unix seconds, or ``None``.
        approved_by: Who said yes.
    """

    info: StageInfo
    asks: tuple[str, ...]
    low: float
    high: float
    known: int
    scales: tuple[Scale, ...]
    started: float | None
    finished: float | None
    approved_by: str


@dataclass(frozen=True)
class Stored:
    """What is stored of a stage beside its :class:`StageInfo`."""

    started: float | None
    finished: float | None
    approved_by: str
    findings: tuple[Finding, ...]


def cards(
    rollout: RolloutInfo, spec: RolloutSpec, stored: Mapping[int, Stored]
) -> tuple[Card, ...]:
    """Returns a rollout's stages."""
    return tuple(_card(each, spec.stages[each.index], stored[each.index])
                 for each in rollout.stages)  # fmt: skip


def _card(info: StageInfo, spec: StageSpec, stored: Stored) -> Card:
    known = info.healthy + info.failed
    test = spec.gate.sequential
    low, high = band(info.failed, known, test.alpha if test else 0.05)
    return Card(
        info=info, asks=asks(spec), low=low, high=high, known=known,
        scales=tuple(_scale(each) for each in stored.findings), started=stored.started,
        finished=stored.finished, approved_by=stored.approved_by,
    )  # fmt: skip


def _scale(finding: Finding) -> Scale:
    measure = _MEASURES[finding.measure]
    return Scale(
        title=f"{finding.device_class}: {measure}" if finding.device_class else measure,
        verdict=finding.verdict, seen=finding.seen, reason=finding.reason,
        against=_reached(finding.against, finding.halts_at),
        for_it=_reached(finding.for_it, finding.passes_at),
        odds_against=words.odds(finding.against, finding.halts_at),
        odds_for=words.odds(finding.for_it, finding.passes_at),
    )  # fmt: skip


def _reached(evidence: float, bound: float) -> float:
    return min(1.0, max(0.0, evidence / bound)) if bound else 0.0


def asks(stage: StageSpec) -> tuple[str, ...]:
    """Returns what a stage must prove, in sentences."""
    gate = stage.gate
    found = list(_test(gate.sequential) if gate.sequential else _thresholds(gate))
    if gate.soak_seconds:
        found.append(f"The boards that proved it stay healthy for {words.span(gate.soak_seconds)}.")
    found.append(f"A board silent for {words.span(gate.silence_seconds)} has failed.")
    limits = gate.limits
    if limits.failed is not None:
        found.append(f"Stops at once at {limits.failed} failed boards.")
    if limits.latency_p95_ms is not None:
        found.append(f"Stops at once where a board's p95 is over {limits.latency_p95_ms:g} ms.")
    if limits.error_share is not None:
        found.append(f"Stops at once where over {limits.error_share:.1%} of a board's frames fail.")
    if stage.approval:
        found.append("Then a person says yes.")
    return tuple(found)


def _thresholds(gate: GateSpec) -> list[str]:
    needed = f"{gate.min_healthy} boards" if gate.min_healthy else "every board that did not fail"
    return [
        f"At most {gate.max_failure_share:.0%} of a class's boards fail.",
        f"Of each class, {needed} proves healthy.",
    ]


def _test(test: SequentialSpec) -> list[str]:
    found = [
        f"Tells {test.good_share:.3g} from {test.bad_share:.3g} failing boards of a class; a good "
        f"release is halted with a chance of {test.alpha:.0%} at the most, whenever one looks."
    ]
    if test.latency_ratio is not None:
        found.append(f"Frame time does not grow by more than {test.latency_ratio - 1:.0%} against "
                     "boards that were not reached.")  # fmt: skip
    if test.min_agreement is not None:
        found.append(f"At least {test.min_agreement:.0%} of the old engine's objects are seen.")
    found.append(f"Where it cannot say, the stage {_EXHAUSTED[test.on_exhausted]}.")
    return found
