"""The fleet at a glance, as its page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from kedge_server.accounts.principal import Reach
from kedge_server.fleet.counting import Straggler, kinds, stragglers
from kedge_server.fleet.summary import classes, silent_after
from kedge_shared.fleet import ClassHealth


@dataclass(frozen=True)
class Overview:
    """The fleet.

    Attributes:
        silent_seconds: Who was not heard of for so long is silent.
        classes: How the boards of each class are, largest first.
        stragglers: Some of the boards that lag behind.
    """

    silent_seconds: float
    classes: tuple[ClassHealth, ...]
    stragglers: tuple[Straggler, ...]

    @property
    def devices(self) -> int:
        """Boards that are let in and serve."""
        return sum(each.devices for each in self.classes)

    @property
    def silent(self) -> int:
        """Those that have not been heard of for too long."""
        return sum(each.silent for each in self.classes)

    @property
    def at_work(self) -> int:
        """Those that an update is on the way to."""
        return sum(each.at_work for each in self.classes)

    @property
    def behind(self) -> int:
        """Those that do not run what they were told to, though nothing is on the way."""
        return sum(each.behind for each in self.classes)

    @property
    def suspected(self) -> int:
        """Those that seem to be two."""
        return sum(each.suspected_clones for each in self.classes)


def look(session: Session, within: Reach, poll_seconds: float, now: float) -> Overview:
    """Returns the fleet in figures: one pass over its boards."""
    quiet = silent_after(poll_seconds)
    known = kinds(session, within, quiet, now)
    return Overview(
        silent_seconds=quiet,
        classes=tuple(sorted(classes(known), key=lambda each: -each.devices)),
        stragglers=tuple(stragglers(session, within, quiet, now, known)),
    )
