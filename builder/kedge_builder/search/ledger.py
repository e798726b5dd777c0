"""What a study's trials say of its points: finished, claimed, given up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from kedge_builder.search.measured import Measured, Record
from kedge_builder.search.space import Point, Space

#: User attributes of a trial.
MEASURED, WHY, REUSED = "measured", "why", "reused"
_PRUNED, _SIZE, _PRECISION = "pruned_at", "size_at", "precision"


def suggest(trial: Any, space: Space) -> Point:
    """Draws a point. Steps and sizes are drawn by their place, which keeps their order."""
    return Point(
        space.pruned[trial.suggest_int(_PRUNED, 0, len(space.pruned) - 1)],
        space.input_sizes[trial.suggest_int(_SIZE, 0, len(space.input_sizes) - 1)],
        trial.suggest_categorical(_PRECISION, space.precisions),
    )


def params_of(point: Point, space: Space) -> dict[str, Any]:
    """Returns the parameters that :func:`suggest` turns into ``point``."""
    return {
        _PRUNED: space.pruned.index(point.pruned),
        _SIZE: space.input_sizes.index(point.input_size),
        _PRECISION: point.precision,
    }


def point_of(trial: FrozenTrial, space: Space) -> Point | None:
    """Returns a trial's point, or ``None`` while it is not wholly drawn."""
    params = trial.params
    if not {_PRUNED, _SIZE, _PRECISION} <= params.keys():
        return None
    return Point(
        space.pruned[params[_PRUNED]], space.input_sizes[params[_SIZE]], params[_PRECISION]
    )


def finished(trials: Iterable[FrozenTrial], space: Space) -> dict[Point, Record]:
    """Returns the points that have an answer, with it.

    What counts is that figures or a reason were written, not the trial's state: a process may die
    between writing the figures and closing the trial, and the measurement is good.
    """
    found: dict[Point, Record] = {}
    for trial in sorted(trials, key=lambda each: each.number):
        point = point_of(trial, space)
        if point is None or point in found:
            continue
        if figures := trial.user_attrs.get(MEASURED):
            found[point] = Record(point, Measured(**figures))
        elif why := trial.user_attrs.get(WHY):
            found[point] = Record(point, None, str(why))
    return found


def claimed(
    trials: Iterable[FrozenTrial], space: Space, but: int | None = None
) -> Mapping[Point, int]:
    """Returns the points that some process is measuring, with the trial's number.

    Args:
        trials: Of the study.
        space: Of the study.
        but: A trial that does not count: the asker's own.
    """
    return {
        point: trial.number
        for trial in trials
        if trial.state == TrialState.RUNNING and trial.number != but
        and (point := point_of(trial, space))
    }  # fmt: skip


def given_up(trials: Iterable[FrozenTrial], space: Space) -> tuple[Point, ...]:
    """Returns the points of trials that ended without an answer, in the order of the trials."""
    ended = (each for each in trials if each.state == TrialState.FAIL)
    found = (point_of(each, space) for each in sorted(ended, key=lambda each: each.number))
    return tuple(dict.fromkeys(each for each in found if each))
