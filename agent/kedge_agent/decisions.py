"""What the agent decides, as functions without I/O and without a clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import structs

from kedge_agent.local_protocol import Evidence, PreflightResult
from kedge_agent.patience import ProbationSettings
from kedge_agent.state import Deployment, State
from kedge_shared.manifest import Manifest
from kedge_shared.phases import RESUME, Event, Phase
from kedge_shared.policy import ModelPolicy
from kedge_shared.protocol import Verdict, VerdictCode

OK = Verdict(code="ok")
#: Starts of an update that end without a verdict before the board gives it up: what takes the
#: updater down each time must not be tried for ever.
MAX_ATTEMPTS = 5
#: Paired frames before the ratio of frame times says anything.
_RATIO_FRAMES = 60
#: Medians of two equal engines on a shared board differ by some per cent either way; so little does
#: not explain a frame time over its budget.
_AS_FAST = 1.15


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


def judge_shadow(
    evidence: Evidence, manifest: Manifest, settings: ProbationSettings, *, ended: bool
) -> Ruling:
    """Judges the candidate beside the active engine; called again and again.

    Args:
        evidence: So far.
        manifest: Of the candidate.
        settings: Share of errors borne.
        ended: The time for shadowing is over.
    """
    if evidence.errors:
        return harm("crash", f"failed on {evidence.errors} live frames in shadow", Phase.SHADOW)
    low, high = agreement_bounds(evidence.blocks, settings.error_share)
    if _held(manifest) and high < manifest.shadow.min_agreement:
        return _disagrees(evidence.blocks, manifest, Phase.SHADOW)
    if not ended:
        return WATCH
    if not _held(manifest) or low >= manifest.shadow.min_agreement:
        return Ruling(Event.PASSED, Verdict(code="ok", reason="shadow holds"))
    reason = f"{evidence.objects} frames with objects do not tell yet; probation goes on watching"
    return Ruling(Event.UNDECIDED, Verdict(code="undecided", reason=reason))


def judge_probation(
    evidence: Evidence | None,
    before: Sequence[float],
    manifest: Manifest,
    policy: ModelPolicy,
    settings: ProbationSettings,
    *,
    frames: int,
    elapsed: float,
) -> Ruling:
    """Judges the new engine in service; called again and again.

    Args:
        evidence: Of the reverse shadow; ``None`` where there is no older engine.
        before: Agreement by block from the shadow before the swap: the same comparison.
        manifest: Of the new engine.
        policy: Of the model.
        settings: Times and error share.
        frames: Live frames of the new engine.
        elapsed: Seconds in probation.
    """
    phase = Phase.PROBATION
    if frames >= settings.min_frames and evidence is not None:
        slow = _judge_live_latency(evidence, manifest)
        if slow is not None:
            return slow
    if evidence is not None and evidence.errors:
        return harm("crash", f"failed on {evidence.errors} live frames", phase)
    own = evidence.blocks if evidence else ()
    blocks = (*before, *own)
    low, _ = agreement_bounds(blocks, settings.error_share)
    compared = evidence is not None and _held(manifest)
    # Harm is judged on what the engine does in service alone: that it agreed in shadow excuses
    # nothing. Health may count both, it is the same comparison on the same scene.
    if compared and agreement_bounds(own, settings.error_share)[1] < manifest.shadow.min_agreement:
        return _disagrees(own, manifest, phase)
    busy = evidence is not None and _over_budget(evidence, manifest)
    ripe = elapsed >= settings.seconds and frames >= settings.min_frames and not busy
    if ripe and (not compared or low >= manifest.shadow.min_agreement):
        said, figures = f"served {frames} frames", dict[str, float](frames=frames)
        if compared:
            said += f", sees at least {low:.2f} of what the older engine sees"
        if compared and blocks:
            # A fleet's gate asks for it, board by board.
            figures["agreement"] = sum(blocks) / len(blocks)
        return Ruling(Event.HEALTHY, Verdict(code="ok", reason=said, evidence=figures))
    if elapsed < settings.max_seconds:
        return WATCH
    reason = f"{len(blocks)} blocks of evidence and {frames} frames do not tell"
    if evidence is not None and busy:
        reason += f": {evidence.new_p95_ms:.1f} ms a frame is over budget, on a board that is busy"
    return _exhausted(reason, frames, policy)


def _exhausted(reason: str, frames: int, policy: ModelPolicy) -> Ruling:
    if policy.on_undecided == "confirm" and frames:
        kept = f"{reason}; kept, as the policy says"
        return Ruling(Event.HEALTHY, Verdict(code="undecided", reason=kept))
    verdict = Verdict(
        code="undecided", reason=reason, cause="undecided", stopped_in=Phase.PROBATION
    )
    return Ruling(Event.UNDECIDED, verdict)


def _judge_live_latency(evidence: Evidence, manifest: Manifest) -> Ruling | None:
    told = evidence.frames >= _RATIO_FRAMES and not _only_busy(evidence)
    if _over_budget(evidence, manifest) and told:
        limit = manifest.budgets.latency_p95_ms
        return harm(
            "latency",
            f"live frame time {evidence.new_p95_ms:.1f} ms (95th percentile) is over the budget "
            f"of {limit:.1f} ms",
            Phase.PROBATION,
            latency_p95_ms=evidence.new_p95_ms,
            limit=limit,
        )
    ratio = manifest.budgets.latency_ratio
    if ratio is not None and _paired(evidence) and evidence.new_ms > ratio * evidence.old_ms:
        return harm(
            "latency",
            f"live frames take {evidence.new_ms:.1f} ms, the older engine {evidence.old_ms:.1f}",
            Phase.PROBATION,
            ratio=evidence.new_ms / evidence.old_ms,
            limit=ratio,
        )
    return None


def _over_budget(evidence: Evidence, manifest: Manifest) -> bool:
    limit = manifest.budgets.latency_p95_ms
    return limit is not None and evidence.new_p95_ms > limit


def _paired(evidence: Evidence) -> bool:
    return evidence.frames >= _RATIO_FRAMES and evidence.old_ms > 0


def _only_busy(evidence: Evidence) -> bool:
    """Says whether the older engine is hardly faster on the same frames: then it is the board.

    An engine that is over its budget for that is not healthy and does no harm: it is watched on,
    and undecided if the board stays so.
    """
    return _paired(evidence) and evidence.new_ms <= _AS_FAST * evidence.old_ms


def _held(manifest: Manifest) -> bool:
    return manifest.shadow.must_hold != "nothing"


def _disagrees(blocks: Sequence[float], manifest: Manifest, phase: Phase) -> Ruling:
    seen = sum(blocks) / len(blocks)
    return harm(
        "accuracy",
        f"sees {seen:.2f} of what the older engine sees on live frames, "
        f"{manifest.shadow.min_agreement:.2f} must be",
        phase,
        agreement=seen,
        blocks=len(blocks),
    )


def agreement_bounds(blocks: Sequence[float], error_share: float) -> tuple[float, float]:
    """Returns a confidence sequence for the mean of block agreements.

    Valid at every look at once, so it may be looked at after each block. Empirical-Bernstein
    with predictable plug-in, Waudby-Smith and Ramdas, "Estimating means of bounded random
    variables by betting" (JRSS B 2024), theorem 2, with c = 1/2. Each side bears ``error_share``.

    Args:
        blocks: Block means in 0..1, in the order they came.
        error_share: Chance that a side is ever wrong.

    Returns:
        Lower and upper bound; (0, 1) without blocks.
    """
    log_term = math.log(1 / error_share)
    weights = weighted = spread = 0.0
    total, squares, low, high = 0.5, 0.25, 0.0, 1.0
    for count, value in enumerate(blocks, start=1):
        mean, variance = total / count, squares / count
        rate = min(math.sqrt(2 * log_term / (variance * count * math.log(1 + count))), 0.5)
        weights += rate
        weighted += rate * value
        spread += 4 * (value - mean) ** 2 * (-math.log(1 - rate) - rate) / 4
        centre, radius = weighted / weights, (log_term + spread) / weights
        low, high = max(low, centre - radius), min(high, centre + radius)
        total += value
        squares += (value - total / (count + 1)) ** 2
    return low, high


def resumed(deployment: Deployment) -> Deployment:
    """Returns where a deployment stands after the updater ended in its midst.

    The table decides; an update that is begun again too often is given up before it is loaded.
    """
    after = RESUME[deployment.phase]
    if after is deployment.phase:
        return deployment
    attempts = deployment.attempts + 1
    changed = structs.replace(deployment, phase=after, attempts=attempts)
    if attempts <= MAX_ATTEMPTS or after is not Phase.VERIFYING:
        return changed
    stopped_in = deployment.phase
    reason = f"the update was interrupted {attempts} times, last in {stopped_in.value}"
    verdict = Verdict(code="crash", reason=reason, cause="environment", stopped_in=stopped_in)
    return structs.replace(changed, phase=Phase.REFUSED, verdict=verdict)


def quarantined(engine: str, state: State, *, retry: bool) -> Verdict | None:
    """Says why an engine is not taken again, or ``None`` if it may be."""
    why = state.quarantine.get(engine)
    if why is None or retry:
        return None
    return Verdict(
        code="quarantined", reason=f"this board threw it out before: {why}", cause="harm",
        stopped_in=Phase.VERIFYING,
    )  # fmt: skip
