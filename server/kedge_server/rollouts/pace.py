"""How often rollouts are looked at: a large one costs seconds, which polls are answered in too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Of the leader's time that looks at one rollout may take.
SHARE = 0.1


class Pace:
    """Says which rollouts are due for a look.

    Judging 100,000 boards takes some seconds. With a look at every tick a leader would do nothing
    else, and its boards wait for their answers; so after a look that took a second there is none
    for nine. Small rollouts are looked at every time.

    Args:
        clock: Tells seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._due = clock, dict[str, float]()

    def is_due(self, rollout: str) -> bool:
        """Says whether a rollout is to be looked at now."""
        return self._clock() >= self._due.get(rollout, 0.0)

    @contextmanager
    def looking(self, rollout: str) -> Iterator[None]:
        """Takes the time of a look."""
        began = self._clock()
        yield
        ended = self._clock()
        self._due[rollout] = ended + (ended - began) * (1 / SHARE - 1)

    def forget_others(self, rollouts: set[str]) -> None:
        """Forgets what is not open any more."""
        for each in self._due.keys() - rollouts:
            del self._due[each]
