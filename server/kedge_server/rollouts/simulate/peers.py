"""What others' gates do on the same fleets: each knows the release's boards as one, not by class.

* ``halt above x %``: hawkBit's error threshold of a rollout group: failed / group over x halts.
* Kayenta's judge: Mann-Whitney between boards with the release and boards without, at each
  interval (github.com/spinnaker/kayenta, NetflixACAJudge); the level is its setting. On outcomes
  of 0 and 1 with ties it is the two-sample test of proportions. Its controls fail at the share
  that is borne, and boards that have not spoken count as good: over those alone that have, the
  failures, which show first, would halt every release of a large fleet.
* Argo Rollouts: a measurement at each interval fails when its share of failures is over a
  threshold; more failed measurements than ``failureLimit`` abort (argo-rollouts analysis docs).

A stage passes when all its boards are settled and have soaked. Each rule is tuned by its setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from kedge_server.rollouts.simulate.fleet import FAILED, HEALTHY, Fleet, Floats, Ints
from kedge_server.rollouts.simulate.kedge import Course

KAYENTA_SECONDS = 600.0
ARGO_SECONDS = 300.0


@dataclass(frozen=True)
class Group:
    """The boards of one stage.

    Attributes:
        known: Seconds from the stage's start until each outcome is known.
        outcome: Of each.
        of_class: Of each.
        controls: Boards that have not been reached.
    """

    known: Floats
    outcome: Ints
    of_class: Ints
    controls: int


#: Returns when a stage is halted, seconds from its start; infinite if never.
Rule = Callable[[Group], float]


def above(share: float) -> Rule:
    """Halts when failed / group is over ``share``."""

    def rule(group: Group) -> float:
        return _nth_failure(group.known, group.outcome, math.floor(share * len(group.outcome)))

    return rule


def above_by_class(share: float) -> Rule:
    """The same for each class of the group."""

    def rule(group: Group) -> float:
        mine = [group.of_class == each for each in np.unique(group.of_class)]
        return min(
            _nth_failure(group.known[each], group.outcome[each], math.floor(share * each.sum()))
            for each in mine
        )

    return rule


def mann_whitney(level: float, background: float = 0.01) -> Rule:
    """Halts at the first interval at which the boards with the release do worse than controls."""
    wanted = -NormalDist().inv_cdf(level)

    def rule(group: Group) -> float:
        if not group.controls:
            return math.inf
        edges, failed, _ = _intervals(group, KAYENTA_SECONDS)
        bad, cases, controls = np.cumsum(failed), len(group.outcome), group.controls
        pooled = (bad + background * controls) / (cases + controls)
        error = np.sqrt(pooled * (1 - pooled) * (1 / cases + 1 / controls))
        return _first(edges, (bad / cases - background) / np.maximum(error, 1e-12) > wanted)

    return rule


def argo(share: float, limit: int) -> Rule:
    """Halts when more than ``limit`` measurements saw more than ``share`` of failures."""

    def rule(group: Group) -> float:
        edges, failed, settled = _intervals(group, ARGO_SECONDS)
        over = (settled > 0) & (failed > share * settled)
        return _first(edges, np.cumsum(over) > limit)

    return rule


_SHARES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.34, 0.5)
_LEVELS = (0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-8, 1e-10,
           1e-12, 1e-15, 1e-20, 1e-30)  # fmt: skip
_LIMITS = (0, 1, 2, 3, 4, 6, 8, 12)

#: Peer → setting → rule, the most sensitive first.
PEERS: Mapping[str, Mapping[str, Rule]] = {
    "halt above x %": {f"{each:.0%}": above(each) for each in _SHARES},
    "halt above x % of a class": {f"{each:.0%}": above_by_class(each) for each in _SHARES},
    "Kayenta Mann-Whitney": {f"p < {each:g}": mann_whitney(each) for each in _LEVELS},
    "Argo failureLimit": {
        f"{share:.0%}, limit {limit}": argo(share, limit)
        for share in (0.02, 0.05, 0.1)
        for limit in _LIMITS
    },
}


def run(fleet: Fleet, rule: Rule) -> Course:
    """Rolls a release out under a peer's rule."""
    starts: list[float] = [0.0]
    for stage in range(len(fleet.model.percents)):
        mine = fleet.stage == stage
        group = Group(
            fleet.known[mine], fleet.outcome[mine], fleet.of_class[mine],
            controls=int((fleet.stage > stage).sum()),
        )  # fmt: skip
        if not len(group.outcome):
            starts.append(starts[-1])
            continue
        halts = rule(group)
        if math.isfinite(halts):
            return Course(starts[-1] + halts, False, tuple(starts), math.inf)
        starts.append(starts[-1] + float(group.known.max()) + fleet.model.soak_seconds)
    return Course(math.inf, False, tuple(starts[:-1]), starts[-1])


def _nth_failure(known: Floats, outcome: Ints, borne: int) -> float:
    shows = np.sort(known[outcome == FAILED])
    return float(shows[borne]) if len(shows) > borne else math.inf


def _intervals(group: Group, seconds: float) -> tuple[Floats, Ints, Ints]:
    """Returns the ends of the intervals, and failures and settled boards in each."""
    last = float(group.known.max()) + seconds
    edges = np.arange(0.0, last + seconds, seconds)
    settled = (group.outcome == FAILED) | (group.outcome == HEALTHY)
    failed, _ = np.histogram(group.known[group.outcome == FAILED], edges)
    every, _ = np.histogram(group.known[settled], edges)
    return edges[1:], failed, every


def _first(edges: Floats, holds: Sequence[bool] | np.ndarray) -> float:
    found = np.flatnonzero(holds)
    return float(edges[found[0]]) if len(found) else math.inf
