"""Choosing between candidates on the select split: measured accuracy first, distortion second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kedge_builder.compilers.rknn import ALGORITHMS
from kedge_builder.judge.ladder import Rung
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.evaluate import Drop, drop_interval
from kedge_builder.measure.surveys import Survey
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.ranges import CALIBRATORS
from kedge_builder.quantize.source import Split
from kedge_shared.device_classes import DeviceClass


@dataclass(frozen=True)
class Candidate:
    """One engine that was made and measured on the select split.

    Attributes:
        plan: How it was made.
        files: The engine.
        survey: What it did.
        drop: Loss of mAP50-95 against float on the same images.
    """

    plan: Plan
    files: tuple[EngineFile, ...]
    survey: Survey
    drop: Drop


@dataclass(frozen=True)
class Choice:
    """The candidate taken.

    Attributes:
        taken: It.
        reason: Why, for the report.
    """

    taken: Candidate
    reason: str


def plans_for(device_class: DeviceClass) -> tuple[Plan, ...]:
    """Returns the plans worth measuring for a class."""
    if device_class.form == "nncf-mixed":
        return (Plan(),)
    if device_class.form == "ncnn-float":
        return (Plan(precision="float"),)
    if device_class.form == "float16":
        return (Plan(precision="half"),)
    if device_class.form == "rknn-int8":
        return tuple(Plan(calibrator=each, bias_correction=False) for each in ALGORITHMS)
    return tuple(Plan(calibrator=each) for each in CALIBRATORS)


def rungs_for(device_class: DeviceClass, allowed: Sequence[Rung]) -> tuple[Rung, ...]:
    """Returns what may be tried when the plans of a class lose too much: of INT8, all of it."""
    floats = device_class.form in {"float16", "ncnn-float"}
    return tuple(each for each in allowed if each == "float" or not floats)


def choose(candidates: Sequence[Candidate], *, seed: int) -> Choice:
    """Takes the most accurate candidate, or its nearest equal to float.

    Among those that the images cannot tell from the best, the one with least distortion is taken:
    64 images leave a difference of mAP uncertain by a point and more, and picking the luckiest of
    four would be picking noise.
    """
    best = max(candidates, key=lambda each: each.survey.accuracy.map50_95)
    tied = [
        each for each in candidates
        if each is best
        or drop_interval(best.survey.accuracy, each.survey.accuracy, seed=seed).low <= 0
    ]  # fmt: skip
    taken = min(tied, key=lambda each: each.survey.distortion)
    if len(candidates) == 1:
        return Choice(taken, "the only form for this runtime")
    if len(tied) == 1:
        return Choice(taken, "most accurate on the select images")
    return Choice(
        taken,
        f"nearest to float of the {len(tied)} that {len(best.survey.accuracy.stats)} select images "
        "cannot tell apart",
    )


def measured(
    plan: Plan,
    make: Callable[[Plan], tuple[EngineFile, ...]],
    survey: Callable[[str, Sequence[EngineFile], Split], Survey],
    reference: Survey,
    *,
    seed: int,
) -> Candidate:
    """Makes a plan's engine and measures it on the select split."""
    files = make(plan)
    found = survey(plan.name, files, "select")
    drop = drop_interval(reference.accuracy, found.accuracy, seed=seed)
    return Candidate(plan, files, found, drop)
