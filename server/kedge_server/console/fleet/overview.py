"""The fleet in figures: one look over all boards, kept by what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Row, case, func, select
from sqlmodel import Session, col

from kedge_server.accounts.principal import Reach
from kedge_server.devices.facts import COLUMNS, facts_of_device
from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.rollouts.tables import DeploymentRow

#: A board that has missed so many polls is silent; and nobody is silent before so many seconds.
_MISSED, _LEAST_SECONDS = 5, 600.0
_SHOWN = 12
_NONE = "none yet"


class Kind(NamedTuple):
    """What boards that are counted together have in common.

    Attributes:
        device_class: Their class.
        release: That they run; empty before the first.
        assigned: That they were told to run; empty if nothing.
        at_work: An update is on the way to them.
        silent: They have not been heard of for too long.
    """

    device_class: str
    release: str
    assigned: str
    at_work: bool
    silent: bool

    @property
    def behind(self) -> bool:
        """They do not run what they were told to, and nothing is on the way."""
        return not self.at_work and self.assigned not in {"", self.release}


@dataclass(frozen=True)
class ClassShare:
    """Boards of a device class.

    Attributes:
        name: The class.
        devices: How many.
        releases: Release and boards that run it, most first.
        assigned: Releases that they were told to run, most boards first.
        behind: Boards that do not run what they were told to.
        silent: Boards that have not been heard of for too long.
    """

    name: str
    devices: int
    releases: tuple[tuple[str, int], ...]
    assigned: tuple[str, ...]
    behind: int
    silent: int


@dataclass(frozen=True)
class Straggler:
    """A board that somebody may have to look after.

    Attributes:
        device: Its name.
        device_class: Its class.
        why: What is the matter.
        last_seen: Unix seconds, or ``None``.
    """

    device: str
    device_class: str
    why: str
    last_seen: float | None


@dataclass(frozen=True)
class Overview:
    """The fleet.

    Attributes:
        devices: Boards that are not revoked.
        silent: Those that have not been heard of for too long.
        at_work: Those that an update is on the way to.
        behind: Those that do not run what they were told to, though nothing is on the way.
        suspected: Those that seem to be two.
        silent_seconds: For so long.
        classes: By device class, largest first.
        stragglers: Some of those that lag behind.
    """

    devices: int
    silent: int
    at_work: int
    behind: int
    suspected: int
    silent_seconds: float
    classes: tuple[ClassShare, ...]
    stragglers: tuple[Straggler, ...]


def silent_after(poll_seconds: float) -> float:
    """Returns after how many seconds without a word a board is silent."""
    return max(_LEAST_SECONDS, _MISSED * poll_seconds)


def look(session: Session, within: Reach, poll_seconds: float, now: float) -> Overview:
    """Returns the fleet in figures: one pass over its boards."""
    quiet = silent_after(poll_seconds)
    kinds = _counted(session, now - quiet) if within.whole else _within(session, within, now, quiet)
    classes = _classes(kinds)
    return Overview(
        devices=sum(kinds.values()), silent=sum(each.silent for each in classes),
        at_work=sum(count for kind, count in kinds.items() if kind.at_work),
        behind=sum(each.behind for each in classes), silent_seconds=quiet, classes=classes,
        suspected=_suspected(session, within),
        stragglers=tuple(_stragglers(session, within, now - quiet)),
    )  # fmt: skip


#: A rollout takes its boards in turn: what a board should run is what it was told, no one release.
_ASSIGNED = func.coalesce(
    case((col(AssignmentRow.intent) == "hold", None), else_=col(DeploymentRow.release)), ""
)
_SILENT = func.coalesce(col(DeviceRow.last_seen), col(DeviceRow.enrolled))
_AT_REST = ("idle", "confirmed", "rolled_back", "refused")
_STANDING = (col(DeviceRow.revoked).is_(None), col(DeviceRow.serves))


def _of_boards(*columns: Any) -> Any:
    """Returns a query over the boards and what each was told."""
    told = col(AssignmentRow.device) == col(DeviceRow.id)
    what = col(DeploymentRow.id) == col(AssignmentRow.deployment)
    boards = select(*columns).select_from(DeviceRow).outerjoin(AssignmentRow, told)
    return boards.outerjoin(DeploymentRow, what).where(*_STANDING)


def _counted(session: Session, since: float) -> Counter[Kind]:
    work = case((col(DeviceRow.phase).in_(_AT_REST), 0), else_=1)
    groups = (col(DeviceRow.device_class), col(DeviceRow.release), _ASSIGNED, work,
              since > _SILENT)  # fmt: skip
    rows = session.execute(_of_boards(*groups, func.count()).group_by(*groups)).all()
    return Counter(
        {Kind(row[0], row[1], row[2], bool(row[3]), bool(row[4])): row[5] for row in rows}
    )


_MORE = (*COLUMNS, DeviceRow.phase, DeviceRow.last_seen, DeviceRow.enrolled)


def _within(session: Session, within: Reach, now: float, quiet: float) -> Counter[Kind]:
    found: Counter[Kind] = Counter()
    for row in session.execute(_of_boards(*_MORE, _ASSIGNED.label("assigned"))):
        if within.includes(facts_of_device(row)):
            silent = (row.last_seen or row.enrolled) < now - quiet
            at_work = row.phase not in _AT_REST
            found[Kind(row.device_class, row.release, row.assigned, at_work, silent)] += 1
    return found


def _suspected(session: Session, within: Reach) -> int:
    rows = session.execute(_of_boards(*COLUMNS).where(col(DeviceRow.suspected_clone).is_not(None)))
    return sum(within.whole or within.includes(facts_of_device(row)) for row in rows)


def _classes(kinds: Mapping[Kind, int]) -> tuple[ClassShare, ...]:
    names = Counter[str]()
    for kind, count in kinds.items():
        names[kind.device_class] += count
    return tuple(
        _class_share(name, {kind: n for kind, n in kinds.items() if kind.device_class == name})
        for name, _ in names.most_common()
    )


def _class_share(name: str, kinds: Mapping[Kind, int]) -> ClassShare:
    releases, assigned = Counter[str](), Counter[str]()
    for kind, count in kinds.items():
        releases[kind.release or _NONE] += count
        if kind.assigned:
            assigned[kind.assigned] += count
    return ClassShare(
        name=name, devices=sum(kinds.values()), releases=tuple(releases.most_common()),
        assigned=tuple(release for release, _ in assigned.most_common()),
        behind=sum(count for kind, count in kinds.items() if kind.behind),
        silent=sum(count for kind, count in kinds.items() if kind.silent),
    )  # fmt: skip


def _stragglers(session: Session, within: Reach, since: float) -> Iterable[Straggler]:
    """Yields some boards of each kind that lag behind; the figures tell how many there are."""
    for row in _some(session, within, since > _SILENT):
        yield Straggler(row.id, row.device_class, "silent", row.last_seen)
    behind = (since <= _SILENT, col(DeviceRow.phase).in_(_AT_REST),
              _ASSIGNED != "", col(DeviceRow.release) != _ASSIGNED)  # fmt: skip
    for row in _some(session, within, *behind):
        why = f"runs {row.release or 'nothing yet'}, assigned {row.assigned}"
        phase = row.phase.replace("_", " ")
        told = f"{why}: {phase}" if row.phase in {"refused", "rolled_back"} else why
        yield Straggler(row.id, row.device_class, told, row.last_seen)


def _some(session: Session, within: Reach, *conditions: Any) -> list[Row[Any]]:
    query = _of_boards(*_MORE, _ASSIGNED.label("assigned")).where(*conditions)
    rows = session.execute(query.limit(_SHOWN if within.whole else 500))
    found = (row for row in rows if within.whole or within.includes(facts_of_device(row)))
    return [row for row, _ in zip(found, range(_SHOWN), strict=False)]
