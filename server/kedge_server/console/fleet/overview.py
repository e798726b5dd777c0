"""The fleet in figures: one look over all boards, kept by what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, case, func, not_, select
from sqlmodel import Session, col

from kedge_server.accounts.principal import Reach
from kedge_server.devices.facts import COLUMNS, facts_of_device
from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.rollouts.membership import OPEN_ROLLOUTS
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared.phases import BACK, TERMINAL, Phase

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
    read = _counted if within.whole else _within
    kinds, suspected = read(session, within, now - quiet)
    classes = _classes(kinds)
    silent, behind = (
        sum(each.silent for each in classes), sum(each.behind for each in classes)
    )  # fmt: skip
    lagging: list[Straggler] = []
    # Not to be looked for where there are none: that is a look at every board.
    if silent:
        lagging += _silent(session, within, now - quiet)
    if behind:
        lagging += _behind(session, within, now - quiet)
    return Overview(
        devices=sum(kinds.values()), silent=silent, behind=behind, suspected=suspected,
        at_work=sum(count for kind, count in kinds.items() if kind.at_work),
        silent_seconds=quiet, classes=classes, stragglers=tuple(lagging),
    )  # fmt: skip


_SILENT = func.coalesce(col(DeviceRow.last_seen), col(DeviceRow.enrolled))
_AT_REST = tuple(sorted(each.value for each in (Phase.IDLE, *TERMINAL)))
_STANDING = (col(DeviceRow.revoked).is_(None), col(DeviceRow.serves))


def _current(session: Session) -> tuple[str, ...]:
    """Returns what open rollouts bring, and what the newest that was completed brought."""
    release, state = col(RolloutRow.release), col(RolloutRow.state)
    newest = select(release).where(state == "completed").order_by(col(RolloutRow.order).desc())
    opened = select(release).where(state.in_(OPEN_ROLLOUTS))
    found = {*session.execute(newest.limit(1)).scalars(), *session.execute(opened).scalars()}
    return tuple(sorted(found))


@dataclass(frozen=True)
class _Boards:
    """The boards with what each was told to run.

    A rollout takes its boards in turn: what a board should run is what it was told, no one release.
    Who proved healthy with a current release is not asked about further: of most that holds, and
    what each was told stands in two other tables.

    Attributes:
        healthy: A board has proved healthy with a current release.
        assigned: What it was told to run; empty if nothing.
    """

    healthy: ColumnElement[bool]
    assigned: ColumnElement[str]

    @classmethod
    def of(cls, session: Session) -> _Boards:
        """Returns them as rollouts stand now."""
        healthy = and_(col(DeviceRow.phase) == "confirmed",
                       col(DeviceRow.release).in_(_current(session)))  # fmt: skip
        told = case((col(AssignmentRow.intent) == "hold", ""), else_=col(DeploymentRow.release))
        assigned = case((healthy, col(DeviceRow.release)), else_=func.coalesce(told, ""))
        return cls(healthy, assigned)

    def query(self, *columns: Any) -> Any:
        """Returns a query over the boards that are not revoked and serve."""
        told = and_(col(AssignmentRow.device) == col(DeviceRow.id), not_(self.healthy))
        what = col(DeploymentRow.id) == col(AssignmentRow.deployment)
        boards = select(*columns).select_from(DeviceRow).outerjoin(AssignmentRow, told)
        return boards.outerjoin(DeploymentRow, what).where(*_STANDING)


def _counted(session: Session, _: Reach, since: float) -> tuple[Counter[Kind], int]:
    """Returns boards of each kind, and how many of all seem to be two."""
    work = case((col(DeviceRow.phase).in_(_AT_REST), 0), else_=1)
    boards = _Boards.of(session)
    each = boards.query(
        col(DeviceRow.device_class), col(DeviceRow.release), boards.assigned.label("assigned"),
        work.label("work"), (since > _SILENT).label("silent"),
        col(DeviceRow.suspected_clone).label("suspected"),
    ).subquery()  # fmt: skip
    # Grouped by the columns of a query within: expressions with values are not taken for the same.
    groups = (each.c.device_class, each.c.release, each.c.assigned, each.c.work, each.c.silent)
    query = select(*groups, func.count(), func.count(each.c.suspected)).group_by(*groups)
    rows = session.execute(query).all()
    kinds = Counter(
        {Kind(row[0], row[1], row[2], bool(row[3]), bool(row[4])): row[5] for row in rows}
    )
    return kinds, sum(row[6] for row in rows)


_MORE = (*COLUMNS, DeviceRow.phase, DeviceRow.last_seen, DeviceRow.enrolled,
         DeviceRow.suspected_clone)  # fmt: skip


def _within(session: Session, within: Reach, since: float) -> tuple[Counter[Kind], int]:
    """The same of a part of the fleet, which only a look at each board tells."""
    found, suspected, boards = Counter[Kind](), 0, _Boards.of(session)
    for row in session.execute(boards.query(*_MORE, boards.assigned.label("assigned"))):
        if within.includes(facts_of_device(row)):
            silent = (row.last_seen or row.enrolled) < since
            at_work = row.phase not in _AT_REST
            found[Kind(row.device_class, row.release, row.assigned, at_work, silent)] += 1
            suspected += row.suspected_clone is not None
    return found, suspected


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


def _silent(session: Session, within: Reach, since: float) -> Iterable[Straggler]:
    """Returns some boards that are silent; the figures tell how many there are."""
    rows = _some(session, within, _Boards.of(session), since > _SILENT)
    return [Straggler(row.id, row.device_class, "silent", row.last_seen) for row in rows]


def _behind(session: Session, within: Reach, since: float) -> Iterable[Straggler]:
    """Yields some boards that do not run what they were told to."""
    boards = _Boards.of(session)
    behind = (since <= _SILENT, col(DeviceRow.phase).in_(_AT_REST), not_(boards.healthy),
              boards.assigned != "", col(DeviceRow.release) != boards.assigned)  # fmt: skip
    for row in _some(session, within, boards, *behind):
        why = f"runs {row.release or 'nothing yet'}, assigned {row.assigned}"
        phase = row.phase.replace("_", " ")
        told = f"{why}: {phase}" if Phase(row.phase) in BACK else why
        yield Straggler(row.id, row.device_class, told, row.last_seen)


def _some(session: Session, within: Reach, boards: _Boards, *conditions: Any) -> list[Row[Any]]:
    query = boards.query(*_MORE, boards.assigned.label("assigned")).where(*conditions)
    rows = session.execute(query.limit(_SHOWN if within.whole else 500))
    found = (row for row in rows if within.whole or within.includes(facts_of_device(row)))
    return [row for row, _ in zip(found, range(_SHOWN), strict=False)]
