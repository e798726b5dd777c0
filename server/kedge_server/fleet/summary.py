"""The fleet in figures, from boards that were counted by what they have in common. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from kedge_shared.fleet import ClassHealth
from kedge_shared.phases import TERMINAL, Phase

#: What "lately" and "today" are.
LATELY_SECONDS, DAY_SECONDS = 300.0, 86400.0
#: A board that has missed so many polls is silent; and nobody is silent before so many seconds.
_MISSED, _LEAST_SECONDS = 5, 600.0
#: Phases in which no update is on the way.
AT_REST = tuple(sorted(each.value for each in (Phase.IDLE, *TERMINAL)))


def silent_after(poll_seconds: float) -> float:
    """Returns after how many seconds without a word a board is silent."""
    return max(_LEAST_SECONDS, _MISSED * poll_seconds)


class Kind(NamedTuple):
    """What boards that are counted together have in common.

    Attributes:
        device_class: Their class.
        release: That they run; empty before the first.
        assigned: That they were told to run; empty if nothing.
        phase: Of their last deployment.
        lately: They were heard of lately.
        today: The same within a day.
        silent: They have not been heard of for too long.
        suspected: They seem to be two.
    """

    device_class: str
    release: str
    assigned: str
    phase: str
    lately: bool
    today: bool
    silent: bool
    suspected: bool

    @property
    def at_work(self) -> bool:
        """An update is on the way to them."""
        return self.phase not in AT_REST

    @property
    def behind(self) -> bool:
        """They do not run what they were told to, and nothing is on the way."""
        return not self.at_work and self.assigned not in {"", self.release}


def classes(kinds: Mapping[Kind, int]) -> tuple[ClassHealth, ...]:
    """Returns how the boards of each class are, by name.

    Args:
        kinds: What boards have in common → how many there are.
    """
    names = sorted({kind.device_class for kind in kinds})
    return tuple(
        _class(name, {kind: count for kind, count in kinds.items() if kind.device_class == name})
        for name in names
    )


def _class(name: str, kinds: Mapping[Kind, int]) -> ClassHealth:
    phases, releases, assigned = Counter[str](), Counter[str](), Counter[str]()
    for kind, count in kinds.items():
        phases[kind.phase] += count
        releases[kind.release] += count
        if kind.assigned:
            assigned[kind.assigned] += count

    def boards(which: str) -> int:
        return sum(count for kind, count in kinds.items() if getattr(kind, which))

    return ClassHealth(
        device_class=name, devices=sum(kinds.values()), seen_5m=boards("lately"),
        seen_1d=boards("today"), phases=dict(phases.most_common()),
        releases=dict(releases.most_common()), suspected_clones=boards("suspected"),
        silent=boards("silent"), at_work=boards("at_work"), behind=boards("behind"),
        assigned=dict(assigned.most_common()),
    )  # fmt: skip
