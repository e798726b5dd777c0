"""Verdicts of shadow and probation: harm, health, or not yet; functions without I/O or a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from kedge_agent.decisions import WATCH, Ruling, harm
from kedge_agent.evidence import bars
from kedge_agent.evidence.heat import Heat
from kedge_agent.evidence.summary import Evidence, Proof
from kedge_agent.patience import ProbationSettings
from kedge_shared.manifest import Manifest
from kedge_shared.phases import Event, Phase
from kedge_shared.policy import ModelPolicy
from kedge_shared.protocol import Verdict

#: Paired frames before the ratio of frame times says anything.
_RATIO_FRAMES = 60
#: Medians of two equal engines on a shared board differ by some per cent either way; so little does
#: not explain a frame time over its budget.
_AS_FAST = 1.15
#: An engine that said nothing at all on so many frames with so many distinct objects is blind,
#: whatever it is meant to see.
_SILENT_FRAMES = 50
_SILENT_TRACKS = 5
#: The older engine saw something on such a share of its last frames: then an empty scene is odd.
_SEEN_BEFORE = 0.5


@dataclass(frozen=True)
class Served:
    """What the new engine has behind it in probation.

    Attributes:
        frames: Live frames.
        seconds: Since the swap.
        heat: What the board says of its heat.
    """

    frames: int
    seconds: float
    heat: Heat = field(default_factory=Heat)


def judge_shadow(
    evidence: Evidence, manifest: Manifest, settings: ProbationSettings, *, ended: bool
) -> Ruling:
    """Judges the candidate beside the active engine; called again and again.

    Args:
        evidence: So far.
        manifest: Of the candidate.
        settings: Chances of error that are borne.
        ended: The time for shadowing is over.
    """
    phase = Phase.SHADOW
    if evidence.errors:
        return harm("crash", f"failed on {evidence.errors} live frames in shadow", phase)
    lost = _judge_loss(evidence, manifest, settings, phase)
    if lost is not None:
        return lost
    if not ended:
        return WATCH
    if not _held(manifest) or _healthy(evidence.proof, settings):
        return Ruling(Event.PASSED, Verdict(code="ok", reason="shadow holds"))
    reason = f"{evidence.tracks} distinct objects do not tell yet; probation goes on watching"
    return Ruling(Event.UNDECIDED, Verdict(code="undecided", reason=reason))


def judge_probation(
    evidence: Evidence | None,
    before: Proof,
    manifest: Manifest,
    policy: ModelPolicy,
    settings: ProbationSettings,
    served: Served,
) -> Ruling:
    """Judges the new engine in service; called again and again.

    Harm is judged on what the engine does in service alone: that it agreed in shadow excuses
    nothing. Health counts both: what the shadow won is staked on, which is still one bet.

    Args:
        evidence: Of the reverse shadow, or of the new engine alone where memory holds no other;
            ``None`` where there is no older engine.
        before: Of the shadow before the swap.
        manifest: Of the new engine.
        policy: Of the model.
        settings: Times and chances of error.
        served: How long it has served, and how hot the board is.
    """
    phase = Phase.PROBATION
    if evidence is not None:
        stopped = (
            _judge_latency(evidence, manifest, settings, served)
            or _judge_errors(evidence)
            or _judge_loss(evidence, manifest, settings, phase)
        )
        if stopped is not None:
            return stopped
    strained = evidence is not None and (_over_budget(evidence, manifest) or _dumb(evidence))
    ripe = served.seconds >= settings.seconds and served.frames >= settings.min_frames
    compared = evidence is not None and not evidence.alone and _held(manifest)
    proof = _added(before, evidence.proof) if evidence is not None else before
    if ripe and not strained and (not compared or _healthy(proof, settings)):
        return _confirmed(evidence if compared else None, manifest, served)
    if served.seconds < settings.max_seconds + policy.extend_seconds:
        return WATCH
    return _exhausted(evidence, policy, served, strained=strained)


def _confirmed(evidence: Evidence | None, manifest: Manifest, served: Served) -> Ruling:
    said, figures = f"served {served.frames} frames", dict[str, float | str | None]()
    if evidence is not None:
        said += f", loses less than {manifest.shadow.max_loss:.0%} of what the older engine sees"
        figures = _figures(evidence)
        if evidence.tracks:
            # A fleet's gate asks for it, board by board.
            figures["agreement"] = 1 - evidence.missed
    figures["frames"] = served.frames
    return Ruling(Event.HEALTHY, Verdict(code="ok", reason=said, evidence=figures))


def _exhausted(
    evidence: Evidence | None, policy: ModelPolicy, served: Served, *, strained: bool
) -> Ruling:
    """Ends a probation that told nothing: neither failure nor success, and no quarantine."""
    tracks = evidence.tracks if evidence else 0
    reason = f"{tracks} distinct objects and {served.frames} frames do not tell"
    if evidence is not None and _dumb(evidence):
        reason += f": nothing is seen; the older engine saw something on {evidence.seen_before:.0%}"
    elif evidence is not None and strained:
        board = "throttles" if served.heat.throttled else "is busy"
        reason += f": {evidence.new_p95_ms:.1f} ms a frame is over budget, on a board that {board}"
    figures = _figures(evidence) if evidence else {}
    if policy.on_undecided == "confirm" and served.frames:
        kept = f"{reason}; kept, as the policy says"
        return Ruling(Event.HEALTHY, Verdict(code="undecided", reason=kept, evidence=figures))
    verdict = Verdict(
        code="undecided", reason=reason, evidence=figures, cause="undecided",
        stopped_in=Phase.PROBATION,
    )  # fmt: skip
    return Ruling(Event.UNDECIDED, verdict)


def _judge_errors(evidence: Evidence) -> Ruling | None:
    if not evidence.errors:
        return None
    return harm("crash", f"failed on {evidence.errors} live frames", Phase.PROBATION)


def _judge_loss(
    evidence: Evidence, manifest: Manifest, settings: ProbationSettings, phase: Phase
) -> Ruling | None:
    """Judges lost objects by what was won against "it is as good as the older"."""
    silent = evidence.objects >= _SILENT_FRAMES and evidence.tracks >= _SILENT_TRACKS
    if silent and not evidence.answered:
        said = f"sees nothing at all on {evidence.frames} live frames, the older engine does"
        return harm("accuracy", said, phase, **_figures(evidence))
    if not _held(manifest):
        return None
    proof, share = evidence.proof, settings.harm_share
    said = f"misses {evidence.missed:.0%} of what the older engine sees on live frames"
    if bars.proven(proof.blind, share):
        said += f", {1 - manifest.shadow.min_agreement:.0%} may be"
    elif bars.loses(proof.missing, proof.worse, share):
        said += f", and sees {evidence.gained:.0%} that it does not"
    else:
        return None
    return harm("accuracy", f"{said}: {evidence.tracks} objects", phase, **_figures(evidence))


def _judge_latency(
    evidence: Evidence, manifest: Manifest, settings: ProbationSettings, served: Served
) -> Ruling | None:
    """Judges frame times: by the pairs alone where the board may be what is slow."""
    if served.frames < settings.min_frames:
        return None
    if _over_budget(evidence, manifest) and _told(evidence) and not served.heat.throttled:
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
    slow = bars.proven(evidence.proof.slow, settings.harm_share)
    if slow and (ratio is None or _slower_than_before(evidence, ratio)):
        return harm(
            "latency",
            f"live frames take {evidence.new_ms:.1f} ms, the older engine {evidence.old_ms:.1f}",
            Phase.PROBATION,
            new_ms=evidence.new_ms,
            old_ms=evidence.old_ms,
            live_before_ms=evidence.live_before_ms,
            limit=ratio,
        )
    return None


def _over_budget(evidence: Evidence, manifest: Manifest) -> bool:
    limit = manifest.budgets.latency_p95_ms
    return limit is not None and evidence.new_p95_ms > limit


def _told(evidence: Evidence) -> bool:
    """Says whether the older engine is faster on the same frames: else it is the board.

    An engine that is over its budget for that is not healthy and does no harm: it is watched on,
    and undecided if the board stays so.
    """
    paired = evidence.frames >= _RATIO_FRAMES and evidence.old_ms > 0
    slower = evidence.new_ms > _AS_FAST * evidence.old_ms
    return paired and slower and _slower_than_before(evidence, _AS_FAST)


def _slower_than_before(evidence: Evidence, times: float) -> bool:
    """Says whether the live loop takes so much longer than with the older engine in service.

    The pairs compare an engine that serves, and is woken for each frame, with one that runs right
    after it and finds the caches warm: of two alike at 4 ms a frame the shadow was 1.7 times as
    quick. The older engine's own time in service has that share too; but the board may have been
    another then. What is harm is so by both; where that time is not known, the pairs stand alone.
    """
    return evidence.new_ms > times * evidence.live_before_ms or evidence.live_before_ms <= 0


def _dumb(evidence: Evidence) -> bool:
    """Says whether an engine that is alone sees nothing where the older one did.

    The scene may have emptied at the swap, so it is no proof of harm; but no proof of health
    either.
    """
    enough = evidence.alone and evidence.frames >= _SILENT_FRAMES
    return enough and not evidence.answered and evidence.seen_before >= _SEEN_BEFORE


def _held(manifest: Manifest) -> bool:
    return manifest.shadow.must_hold != "nothing"


def _healthy(proof: Proof, settings: ProbationSettings) -> bool:
    return bool(bars.healthy(proof.safe, proof.sighted, settings.error_share))


def _added(before: Proof, since: Proof) -> Proof:
    return Proof(safe=before.safe + since.safe, sighted=before.sighted + since.sighted)


def _figures(evidence: Evidence) -> dict[str, float | str | None]:
    """What a verdict can be explained from afterwards; logarithms of what was won, base ten."""
    proof = evidence.proof
    return {
        "tracks": evidence.tracks, "frames_with_objects": evidence.objects,
        "missed": evidence.missed, "gained": evidence.gained,
        **{f"won_{name}": getattr(proof, name) / math.log(10)
           for name in ("missing", "worse", "blind", "safe", "sighted")},
    }  # fmt: skip
