"""The power table: false halts, misses, boards exposed, time; others at equal false halts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kedge_server.rollouts.simulate import kedge, peers
from kedge_server.rollouts.simulate.fleet import ABSENT, FAILED, Fleet, FleetModel, draw
from kedge_server.rollouts.simulate.kedge import Course
from kedge_shared.rollouts import SequentialSpec

#: Half of the boards are of one class, one in ten of a rare one.
SHARES = {"orin": 0.5, "x86": 0.4, "rk3588": 0.1}
KEDGE = "Kedge"
#: A peer may halt so much more of the good releases than Kedge and still count as equal.
_EQUAL = 0.01

#: Scenario → class → share of failing boards, as multiples of the test's two shares.
SCENARIOS: Mapping[str, Callable[[SequentialSpec], dict[str, float]]] = {
    "good": lambda spec: dict.fromkeys(SHARES, spec.good_share),
    "bad everywhere": lambda spec: dict.fromkeys(SHARES, spec.bad_share),
    "bad on rk3588": lambda spec: (
        dict.fromkeys(SHARES, spec.good_share) | {"rk3588": min(0.9, 3 * spec.bad_share)}
    ),
}


@dataclass(frozen=True)
class Power:
    """How a rule does on many fleets of one kind.

    Attributes:
        rule: Name.
        setting: What it was tuned to.
        scenario: Kind of release.
        devices: Size of the fleets.
        fleets: How many.
        stopped: Share of rollouts that were halted or asked about.
        asked: Share that asked.
        bad: Boards that the release failed on, fleet by fleet.
        exposed: Mean number of boards that took it up.
        hours: Median time until the end, stopped or completed.
        tuned: It stops as few good releases as Kedge's gate; no setting of some peers does.
    """

    rule: str
    setting: str
    scenario: str
    devices: int
    fleets: int
    stopped: float
    asked: float
    bad: tuple[int, ...]
    exposed: float
    hours: float
    tuned: bool = True

    @property
    def bad_exposed(self) -> float:
        """Mean number of boards that the release failed on before it was stopped."""
        return sum(self.bad) / len(self.bad)

    def bad_interval(self, other: Power) -> tuple[float, float]:
        """Returns the 95 % interval of the mean difference to another rule on the same fleets."""
        apart = np.array(self.bad) - np.array(other.bad)
        reach = 1.96 * float(apart.std(ddof=1)) / math.sqrt(len(apart))
        return float(apart.mean()) - reach, float(apart.mean()) + reach


def table(
    devices: int, fleets: int, spec: SequentialSpec, *, percents: Sequence[float] = (5, 25, 100),
    seed: int = 1,
) -> list[Power]:  # fmt: skip
    """Returns the power of Kedge's gate and of its peers, each tuned to Kedge's false halts.

    Args:
        devices: Size of the fleets.
        fleets: Of each scenario.
        spec: Kedge's test.
        percents: Stages.
        seed: Of the draw; every rule sees the same fleets.
    """
    model = FleetModel(devices, SHARES, {}, percents=tuple(percents))
    drawn = {
        name: _draw(replace(model, failing=failing(spec)), fleets, seed)
        for name, failing in SCENARIOS.items()
    }
    rows = []
    for name, each in drawn.items():
        courses = [kedge.run(fleet, spec) for fleet in each]
        rows.append(_power(KEDGE, f"alpha {spec.alpha:g}", name, each, courses))
    borne = rows[0].stopped
    for peer, settings in peers.PEERS.items():
        setting, tuned = _tuned(settings, drawn["good"], borne + _EQUAL)
        for name, each in drawn.items():
            courses = [peers.run(fleet, settings[setting]) for fleet in each]
            rows.append(replace(_power(peer, setting, name, each, courses), tuned=tuned))
    return rows


def _draw(model: FleetModel, fleets: int, seed: int) -> list[Fleet]:
    return [draw(model, np.random.default_rng([seed, each])) for each in range(fleets)]


def _tuned(
    settings: Mapping[str, peers.Rule], good: Sequence[Fleet], most: float
) -> tuple[str, bool]:
    """Returns the setting with the most false halts that are still borne, else the dullest."""
    found = {
        name: sum(math.isfinite(peers.run(fleet, rule).stopped) for fleet in good) / len(good)
        for name, rule in settings.items()
    }
    borne = {name: share for name, share in found.items() if share <= most}
    if not borne:
        return min(found, key=lambda name: found[name]), False
    return max(borne, key=lambda name: borne[name]), True


def _power(
    rule: str, setting: str, scenario: str, fleets: Sequence[Fleet], courses: Sequence[Course]
) -> Power:
    pairs = list(zip(fleets, courses, strict=True))
    reached = [exposed(fleet, course) for fleet, course in pairs]
    return Power(
        rule=rule, setting=setting, scenario=scenario, devices=fleets[0].model.devices,
        fleets=len(fleets),
        stopped=float(np.mean([math.isfinite(each.stopped) for each in courses])),
        asked=float(np.mean([each.asked for each in courses])),
        bad=tuple(bad for _, bad in reached),
        exposed=float(np.mean([every for every, _ in reached])),
        hours=float(np.median([min(each.stopped, each.done) for each in courses])) / 3600,
    )  # fmt: skip


def exposed(fleet: Fleet, course: Course) -> tuple[int, int]:
    """Returns how many boards took the release up before it was stopped, and how many it harmed."""
    started = fleet.stage < len(course.starts)
    starts = np.array([*course.starts, math.inf])[np.minimum(fleet.stage, len(course.starts))]
    began = started & (fleet.outcome != ABSENT) & (starts + fleet.begins < course.stopped)
    return int(began.sum()), int((began & (fleet.outcome == FAILED)).sum())
