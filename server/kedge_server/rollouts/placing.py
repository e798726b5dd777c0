"""The deployments of a rollout by what they count as: the gates' rule, asked of the database.

Every deployment stands in one place of :data:`Place` but ``all``.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import ColumnElement, and_, case, func, not_, null, or_, true
from sqlmodel import col

from kedge_server.rollouts.facts import Silence
from kedge_server.rollouts.tables import DeploymentRow
from kedge_shared.phases import BACK, TERMINAL, Phase
from kedge_shared.rollouts import RolloutSpec

#: In trouble: refused, rolled back, on its way back, or silent for too long.
Place = Literal["trouble", "work", "healthy", "waiting", "all"]

_ENDED = tuple(sorted(each.value for each in TERMINAL))
_BAD = tuple(sorted(each.value for each in (*BACK, Phase.ROLLING_BACK)))
_phase, _assigned = col(DeploymentRow.phase), col(DeploymentRow.assigned)


def within(place: Place, spec: RolloutSpec, now: float) -> ColumnElement[bool]:
    """Returns the condition of a place.

    Args:
        place: Which.
        spec: Of the rollout.
        now: Unix seconds; of a rollout that is over, when it ended.
    """
    reached, bad = _assigned.is_not(None), _phase.in_(_BAD)
    quiet = silent(spec, now)
    places: dict[Place, ColumnElement[bool]] = {
        "trouble": and_(reached, or_(bad, quiet)),
        "work": and_(reached, _phase.not_in((*_ENDED, *_BAD)), not_(quiet)),
        "healthy": and_(reached, _phase == Phase.CONFIRMED.value),
        "waiting": _assigned.is_(None),
        "all": true(),
    }
    return places[place]


def silent(spec: RolloutSpec, now: float) -> ColumnElement[bool]:
    """Returns the condition of having failed by silence: that of each stage's gate."""
    stages = [
        and_(col(DeploymentRow.stage) == at, _lasted(Silence.of(stage.gate, now)))
        for at, stage in enumerate(spec.stages)
    ]
    return and_(_assigned.is_not(None), _phase.not_in(_ENDED), or_(*stages))


def _lasted(rule: Silence) -> ColumnElement[bool]:
    untouched = case((_phase == Phase.IDLE.value, null()), else_=_assigned)
    took_up = func.coalesce(col(DeploymentRow.begun), untouched)
    since = _assigned if rule.from_assignment else took_up
    # Where nothing began this is no NULL: what is not silent has to stand somewhere too.
    return func.coalesce(since, rule.before) < rule.before
