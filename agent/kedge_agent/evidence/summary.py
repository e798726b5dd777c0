"""What shadowing has shown, as the runner tells it and verdicts read it."""

from __future__ import annotations

import msgspec


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was won by betting against each null hypothesis, natural logarithms.

    Reaching ``log(1 / a)`` refutes it with the chance ``a`` of an error, at all looks together
    (kedge_agent.evidence). Those of harm are the highest so far, those of health the present ones.

    Attributes:
        missing: The newer misses no more than the manifest's ``disagreement`` grants it.
        worse: Neither of the two is the better one.
        blind: The newer misses no more than ``1 - min_agreement``.
        slow: The newer takes no more than ``latency_ratio`` times as long.
        safe: The net loss is ``max_loss`` or more.
        sighted: The newer misses ``1 - min_agreement`` or more.
    """

    missing: float = 0.0
    worse: float = 0.0
    blind: float = 0.0
    slow: float = 0.0
    safe: float = 0.0
    sighted: float = 0.0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What shadowing has shown so far, always told from the older to the newer engine.

    Attributes:
        frames: Sampled live frames on which both ran.
        objects: Frames on which either of them saw something.
        answered: Frames on which the newer engine reported anything at all.
        tracks: Distinct objects that were judged: what counts as evidence.
        hits: Objects both saw, frame by frame.
        old_only: Objects only the older engine saw.
        new_only: Objects only the newer engine saw.
        missed: Mean share of a track that only the older saw, 0..1.
        gained: Mean share of a track that only the newer saw, 0..1.
        proof: What follows from it.
        old_ms: Median time of the older engine on these frames, milliseconds, or 0.
        new_ms: Median time of the newer engine, milliseconds, or 0.
        live_before_ms: Median live frame time of the older engine before the swap, milliseconds;
            0 if that is not known, as after a restart.
        new_p95_ms: 95th percentile of the newer engine's live frame time, milliseconds, or 0.
        stride: Live frames for one shadow frame, as the budget allows.
        errors: Frames on which the newer engine failed or gave NaN.
        seconds: Since shadowing began.
        alone: No older engine answers beside it, for want of memory: frames are live ones, and
            nothing is compared.
        seen_before: Share of the older engine's last frames on which it saw something, 0..1; told
            only alone.
    """

    frames: int = 0
    objects: int = 0
    answered: int = 0
    tracks: int = 0
    hits: int = 0
    old_only: int = 0
    new_only: int = 0
    missed: float = 0.0
    gained: float = 0.0
    proof: Proof = Proof()
    old_ms: float = 0.0
    new_ms: float = 0.0
    live_before_ms: float = 0.0
    new_p95_ms: float = 0.0
    stride: float = 0.0
    errors: int = 0
    seconds: float = 0.0
    alone: bool = False
    seen_before: float = 0.0
