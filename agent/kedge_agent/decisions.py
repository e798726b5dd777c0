"""What the agent decides, as functions without I/O and without a clock."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import structs

from kedge_agent.local_protocol import PreflightResult
from kedge_agent.state import Deployment, State
from kedge_shared.manifest import Manifest
from kedge_shared.phases import RESUME, Event, Phase
from kedge_shared.policy import ModelPolicy
from kedge_shared.protocol import Verdict, VerdictCode

OK = Verdict(code="ok")
#: Starts of an update that end without a verdict before the board gives it up: what takes the
#: updater down each time must not be tried for ever.
MAX_ATTEMPTS = 5


@dataclass(frozen=True)
class Ruling:
    """A decision.

    Attributes:
        event: What it does to the phase; ``None`` is: keep watching.
        verdict: Why.
    """

    event: Event | None
    verdict: Verdict


WATCH = Ruling(None, OK)


def harm(code: VerdictCode, reason: str, phase: Phase, **evidence: float | str | None) -> Ruling:
    """Returns a ruling that the engine does harm."""
    verdict = Verdict(code=code, reason=reason, evidence=evidence, cause="harm", stopped_in=phase)
    return Ruling(Event.HARM, verdict)


def judge_preflight(result: PreflightResult, manifest: Manifest, policy: ModelPolicy) -> Ruling:
    """Judges a candidate's first run.

    Bad models show in three ways, none of them the build's own word: fidelity to the recorded
    outputs, label score against the owners' floor, agreement with the active engine.
    """
    phase = Phase.PREFLIGHT
    if result.short:
        verdict = Verdict(code="memory", reason=result.error, cause="environment", stopped_in=phase)
        return Ruling(Event.ENVIRONMENT, verdict)
    if result.misfit:
        verdict = Verdict(code="misfit", reason=result.error, cause="environment", stopped_in=phase)
        return Ruling(Event.ENVIRONMENT, verdict)
    if not result.ok:
        return harm("crash", result.error, phase)
    if result.non_finite:
        return harm("crash", f"gives NaN on {result.non_finite} golden frames", phase)
    if result.zero_scores:
        return harm("accuracy", "sees nothing on golden frames that have objects", phase)
    return (
        _judge_label_score(result, policy)
        or _judge_fidelity(result, manifest)
        or _judge_agreement(result, manifest)
        or _judge_ratio(result, manifest)
        or Ruling(Event.PASSED, Verdict(code="ok", reason="preflight holds", evidence={
            "label_score": result.label_score, "fidelity": result.fidelity,
            "candidate_ms": result.candidate_ms, "active_ms": result.active_ms,
        }))
    )  # fmt: skip


def _judge_label_score(result: PreflightResult, policy: ModelPolicy) -> Ruling | None:
    score = result.label_score or 0.0
    if score >= policy.accuracy_floor:
        return None
    return harm(
        "accuracy",
        f"label score {score:.2f} on {result.frames} golden frames is under the policy's floor "
        f"{policy.accuracy_floor:.2f}",
        Phase.PREFLIGHT,
        label_score=score,
        floor=policy.accuracy_floor,
    )


def _judge_fidelity(result: PreflightResult, manifest: Manifest) -> Ruling | None:
    least = manifest.golden.tolerances.share
    if result.fidelity is None or result.fidelity >= least:
        return None
    return harm(
        "fidelity",
        f"only {result.fidelity:.2f} of the builder's detections are found again on this board, "
        f"{least:.2f} must be",
        Phase.PREFLIGHT,
        fidelity=result.fidelity,
        least=least,
    )


def _judge_agreement(result: PreflightResult, manifest: Manifest) -> Ruling | None:
    least = manifest.shadow.min_agreement
    if manifest.shadow.must_hold == "nothing" or result.agreement is None:
        return None
    better = (result.label_score or 0.0) >= (result.active_label_score or 0.0)
    if result.agreement >= least or better:
        return None
    return harm(
        "accuracy",
        f"sees {result.agreement:.2f} of what the active engine sees on golden frames, "
        f"{least:.2f} must be, and its label score is lower",
        Phase.PREFLIGHT,
        agreement=result.agreement,
        label_score=result.label_score,
        active_label_score=result.active_label_score,
    )


def _judge_ratio(result: PreflightResult, manifest: Manifest) -> Ruling | None:
    """Judges the frame time; ``None`` is: it holds.

    Harm must be proven, for it quarantines. Where all the rounds leave it open, the estimate is
    enough to go on, because probation holds the live ratio to the same limit; it is not enough to
    be thrown out.
    """
    limit, ratio = manifest.budgets.latency_ratio, result.ratio
    if limit is None or ratio is None:
        return None
    if ratio.median <= limit:
        return None
    took = (
        f"takes {result.candidate_ms:.1f} ms a frame on this board, the active engine "
        f"{result.active_ms:.1f}: {ratio.median:.1f} times as long"
    )
    evidence = {
        "ratio": ratio.median, "low": ratio.low, "high": ratio.high, "rounds": ratio.rounds,
        "limit": limit,
    }  # fmt: skip
    if ratio.low > limit:
        said = f"{took} (at least {ratio.low:.2f}), {limit:.1f} is allowed"
        return harm("latency", said, Phase.PREFLIGHT, **evidence)
    said = f"{took}, {limit:.1f} is allowed; {ratio.rounds} rounds do not tell on so busy a board"
    verdict = Verdict(
        code="undecided", reason=said, evidence=evidence, cause="undecided",
        stopped_in=Phase.PREFLIGHT,
    )  # fmt: skip
    return Ruling(Event.UNDECIDED, verdict)


def resumed(deployment: Deployment) -> Deployment:
    """Returns where a deployment stands after the updater ended in its midst.

    The table decides; an update that is begun again too often is given up before it is loaded.
    """
    after = RESUME[deployment.phase]
    if after is deployment.phase:
        return deployment
    attempts, stopped_in = deployment.attempts + 1, deployment.phase
    changed = structs.replace(deployment, phase=after, attempts=attempts)
    if after is Phase.ROLLING_BACK:
        return structs.replace(changed, verdict=unfinished(stopped_in))
    if attempts <= MAX_ATTEMPTS or after is not Phase.VERIFYING:
        return changed
    reason = f"the update was interrupted {attempts} times, last in {stopped_in.value}"
    verdict = Verdict(code="crash", reason=reason, cause="environment", stopped_in=stopped_in)
    return structs.replace(changed, phase=Phase.REFUSED, verdict=verdict)


def unfinished(phase: Phase) -> Verdict:
    """Returns the verdict of a swap that an end of this board's agent, not the engine, undid."""
    reason = f"the board stopped in the midst of the swap, in {phase.value}"
    return Verdict(code="crash", reason=reason, cause="environment", stopped_in=phase)


def quarantined(engine: str, state: State, *, retry: bool) -> Verdict | None:
    """Says why an engine is not taken again, or ``None`` if it may be."""
    why = state.quarantine.get(engine)
    if why is None or retry:
        return None
    return Verdict(
        code="quarantined", reason=f"this board threw it out before: {why}", cause="harm",
        stopped_in=Phase.VERIFYING,
    )  # fmt: skip
