"""The builder's gate: what was measured against the class's budgets. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kedge_shared.bench import Speed
from kedge_shared.device_classes import Budgets
from kedge_shared.manifest import Override

Verdict = Literal["pass", "missed", "undecided", "overridden"]
EXIT: Mapping[Verdict, int] = {"pass": 0, "overridden": 0, "missed": 3, "undecided": 4}
#: INT8 counts as slower than float only beyond what two equal engines differ by in one run.
_SLOWER = 1.05
_UNTIMED = (
    "latency was not measured: the class's runtime is not on this machine; have a board of the "
    "class measure it (--bench-server)"
)
_UNPAIRED = (
    "the board told no interval of its speed beside float; `kedge` on it is older than this one"
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured of a build.

    Attributes:
        latency_p95_ms: Frame time of the built engine; ``None``: not measured.
        memory_mb: Resident memory that loading it added, MiB; ``None``: not measured.
        artifact_mb: Size of its files, MiB.
        drop: Loss of mAP50-95, fraction.
        drop_low: Lower end of its interval.
        drop_high: Upper end of its interval.
        speed: Built against float, round by round of one run; ``None``: not measured.
        finite: No NaN or infinity in any output.
        seen: Detections over the gate images.
        float_seen: The same of the float model.
        images: Gate images.
    """

    latency_p95_ms: float | None
    memory_mb: float | None
    artifact_mb: float
    drop: float
    drop_low: float
    drop_high: float
    speed: Speed | None
    finite: bool
    seen: int
    float_seen: int
    images: int


@dataclass(frozen=True)
class Finding:
    """One thing that was judged.

    Attributes:
        budget: Word that an override names.
        outcome: How it came out.
        reason: The sentence a person reads.
        measured: Figure, if there is one.
        limit: Of the budget, if there is one.
    """

    budget: str
    outcome: Literal["pass", "missed", "undecided"]
    reason: str
    measured: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Decision:
    """The verdict on a build.

    Attributes:
        verdict: Of the whole.
        findings: Everything judged.
        overrides: Budgets missed and accepted.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    overrides: tuple[Override, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences, worst first."""
        order = {"missed": 0, "undecided": 1, "pass": 2}
        ranked = sorted(self.findings, key=lambda each: order[each.outcome])
        return tuple(each.reason for each in ranked)


def judge(figures: Figures, budgets: Budgets, overrides: Mapping[str, str]) -> Decision:
    """Judges a build.

    Broken outputs (NaN, nothing seen) cannot be overridden.

    Args:
        figures: Measured.
        budgets: Of the device class.
        overrides: Budget → reason that a person gave.
    """
    findings = (
        *_broken(figures),
        *_limits(figures, budgets),
        *_accuracy(figures, budgets),
        *_speed(figures),
    )
    accepted = tuple(
        Override(
            budget=each.budget,
            reason=overrides[_name(each)],
            measured=each.measured,
            limit=each.limit,
        )
        for each in findings
        if each.outcome != "pass" and each.budget != "outputs" and _name(each) in overrides
    )
    names = {each.budget for each in accepted}
    open_ones = {e.outcome for e in findings if e.outcome != "pass" and e.budget not in names}
    if "missed" in open_ones:
        verdict: Verdict = "missed"
    elif "undecided" in open_ones:
        verdict = "undecided"
    else:
        verdict = "overridden" if accepted else "pass"
    return Decision(verdict, findings, accepted)


def _name(finding: Finding) -> str:
    return "undecided" if finding.outcome == "undecided" else finding.budget


def _broken(figures: Figures) -> list[Finding]:
    found = []
    if not figures.finite:
        found.append(Finding("outputs", "missed", "outputs hold NaN or infinity"))
    if not figures.seen and figures.float_seen:
        found.append(
            Finding("outputs", "missed", f"sees nothing at all on {figures.images} images where "
                    f"float sees {figures.float_seen} objects: the scores were quantized away")
        )  # fmt: skip
    return found


def _limits(figures: Figures, budgets: Budgets) -> list[Finding]:
    rows = [
        ("latency_p95_ms", figures.latency_p95_ms, budgets.latency_p95_ms, "ms"),
        ("memory_mb", figures.memory_mb, budgets.memory_mb, "MiB"),
        ("artifact_mb", figures.artifact_mb, budgets.artifact_mb, "MiB"),
    ]
    return [
        Finding(
            name,
            "pass" if value <= limit else "missed",
            f"{name.rsplit('_', 1)[0].replace('_', ' ')} {value:.1f} {unit}, "
            f"budget {limit:.1f} {unit}",
            value,
            limit,
        )
        for name, value, limit, unit in rows
        if limit is not None and value is not None
    ]


def _accuracy(figures: Figures, budgets: Budgets) -> list[Finding]:
    limit = budgets.accuracy_drop
    if limit is None:
        return []
    said = (
        f"mAP50-95 drops by {figures.drop * 100:.2f} points "
        f"({figures.drop_low * 100:+.2f} to {figures.drop_high * 100:+.2f}, 95 %) "
        f"on {figures.images} images, budget {limit * 100:.2f}"
    )
    if figures.drop_high <= limit:
        return [Finding("accuracy_drop", "pass", said, figures.drop, limit)]
    if figures.drop_low > limit:
        return [Finding("accuracy_drop", "missed", said, figures.drop, limit)]
    needed = images_needed(figures, limit)
    return [
        Finding("accuracy_drop", "undecided", f"{said}: too close to tell; {needed}",
                figures.drop, limit)
    ]  # fmt: skip


def images_needed(figures: Figures, limit: float) -> str:
    """Says how many gate images would decide; the interval shrinks with their square root."""
    distance = abs(limit - figures.drop)
    half = (figures.drop_high - figures.drop_low) / 2
    if distance < 1e-4 or half <= 0:
        return "no number of images would tell, the drop lies on the budget"
    count = math.ceil(figures.images * (half / distance) ** 2 / 10) * 10
    return f"about {count} images would decide, if the estimate stays"


def _speed(figures: Figures) -> list[Finding]:
    """Slower is what even the upper end of the interval calls slower: a neighbour is no verdict."""
    if figures.latency_p95_ms is None:
        return [Finding("latency_p95_ms", "undecided", _UNTIMED)]
    if figures.speed is None:
        return [Finding("speed", "undecided", _UNPAIRED)]
    ratio, low, high = figures.speed.ratio, figures.speed.low, figures.speed.high
    said = f"runs at {ratio:.2f} times float's speed ({low:.2f} to {high:.2f}, 95 %)"
    if high * _SLOWER >= 1:
        return [Finding("speed", "pass", said, ratio, 1.0)]
    mend = "slower than float in its own runtime; a smaller input, pruning or float may do better"
    return [Finding("speed", "missed", f"{said}: {mend}", ratio, 1.0)]
