"""Counts the fleet: by the database, as far as one sees all of it.

API, command line, console and metrics tell these numbers and no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, case, func, not_, select
from sqlmodel import Session, col

from kedge_server.accounts.principal import Reach
from kedge_server.devices.facts import COLUMNS, facts_of_device
from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.fleet.summary import AT_REST, DAY_SECONDS, LATELY_SECONDS, Kind
from kedge_server.rollouts.membership import OPEN_ROLLOUTS
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow
from kedge_shared.phases import BACK, Phase

_SHOWN = 12
_LATELY, _TODAY, _IS_SILENT, _SUSPECTED = 1, 2, 4, 8


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


class Apart(NamedTuple):
    """Boards that are counted nowhere else.

    Attributes:
        revoked: They are refused.
        measuring: They only measure.
    """

    revoked: int
    measuring: int


_SILENT = func.coalesce(col(DeviceRow.last_seen), col(DeviceRow.enrolled))
#: Boards that are counted: those that are let in and serve.
STANDING = (col(DeviceRow.revoked).is_(None), col(DeviceRow.serves))


def _current(session: Session) -> tuple[str, ...]:
    """Returns what open rollouts bring, and what the newest that was completed brought."""
    release, state = col(RolloutRow.release), col(RolloutRow.state)
    newest = select(release).where(state == "completed").order_by(col(RolloutRow.order).desc())
    opened = select(release).where(state.in_(OPEN_ROLLOUTS))
    found = {*session.execute(newest.limit(1)).scalars(), *session.execute(opened).scalars()}
    return tuple(sorted(found))


@dataclass(frozen=True)
class Boards:
    """The boards with what each was told to run.

    A rollout takes its boards in turn: what a board should run is what it was told, no one release.
    Who proved healthy with a current release is not asked about further: of most that holds, and
    what each was told stands in two other tables.

    Attributes:
        current: Releases that open rollouts bring, and the newest completed one brought.
        healthy: A board has proved healthy with a current release.
        assigned: What it was told to run; empty if nothing.
    """

    current: tuple[str, ...]
    healthy: ColumnElement[bool]
    assigned: ColumnElement[str]

    @classmethod
    def of(cls, session: Session) -> Boards:
        """Returns them as rollouts stand now."""
        current = _current(session)
        healthy = and_(col(DeviceRow.phase) == "confirmed",
                       col(DeviceRow.release).in_(current))  # fmt: skip
        told = case((col(AssignmentRow.intent) == "hold", ""), else_=col(DeploymentRow.release))
        assigned = case((healthy, col(DeviceRow.release)), else_=func.coalesce(told, ""))
        return cls(current, healthy, assigned)

    def settled(self, kind: Kind) -> bool:
        """Says of boards that were counted together whether :attr:`healthy` holds of them."""
        return kind.phase == "confirmed" and kind.release in self.current

    @property
    def behind(self) -> tuple[ColumnElement[bool], ...]:
        """What :attr:`Kind.behind` says of boards that were counted."""
        return (col(DeviceRow.phase).in_(AT_REST), not_(self.healthy), self.assigned != "",
                col(DeviceRow.release) != self.assigned)  # fmt: skip

    def query(self, *columns: Any) -> Any:
        """Returns a query over the boards that are not revoked and serve."""
        told = and_(col(AssignmentRow.device) == col(DeviceRow.id), not_(self.healthy))
        what = col(DeploymentRow.id) == col(AssignmentRow.deployment)
        boards = select(*columns).select_from(DeviceRow).outerjoin(AssignmentRow, told)
        return boards.outerjoin(DeploymentRow, what).where(*STANDING)


def kinds(session: Session, within: Reach, quiet_seconds: float, now: float) -> Mapping[Kind, int]:
    """Returns how many boards there are of each kind.

    Args:
        session: Of the request.
        within: Only boards within.
        quiet_seconds: Who was not heard of for so long is silent.
        now: Unix seconds.
    """
    count = _by_database if within.whole else _one_by_one
    return count(session, within, now - quiet_seconds, now)


def _by_database(session: Session, _: Reach, since: float, now: float) -> Mapping[Kind, int]:
    boards = Boards.of(session)
    every = Counter[Kind]()
    for kind, count in _grouped(session, boards, since, now, joined=False):
        every[kind] += count
    found = Counter({kind: count for kind, count in every.items() if boards.settled(kind)})
    if len(found) < len(every):
        # What the others were told stands in two other tables: of a fleet at rest they are few.
        for kind, count in _grouped(session, boards, since, now, joined=True):
            found[kind] += count
    return found


def _grouped(
    session: Session, boards: Boards, since: float, now: float, *, joined: bool
) -> Iterator[tuple[Kind, int]]:  # fmt: skip
    """Yields kinds and boards: of all as if they ran what they were told, or of the others."""
    seen, release = col(DeviceRow.last_seen), col(DeviceRow.release)
    # One number instead of four columns: what is grouped is sorted, and that is half of the cost.
    marks = (
        case((seen >= now - LATELY_SECONDS, _LATELY | _TODAY), (seen >= now - DAY_SECONDS, _TODAY),
             else_=0)
        + case((since > _SILENT, _IS_SILENT), else_=0)
        + case((col(DeviceRow.suspected_clone).is_(None), 0), else_=_SUSPECTED)
    )  # fmt: skip
    columns = (col(DeviceRow.device_class), release, col(DeviceRow.phase), marks.label("marks"))
    every = select(*columns).where(*STANDING)
    others = boards.query(*columns, boards.assigned.label("assigned")).where(not_(boards.healthy))
    each = (others if joined else every).subquery()
    # Grouped by the columns of a query within: expressions with values are not taken for the same.
    for row in session.execute(select(*each.c, func.count().label("boards")).group_by(*each.c)):
        kind = Kind(
            row.device_class, row.release, row.assigned if joined else row.release, row.phase,
            lately=bool(row.marks & _LATELY), today=bool(row.marks & _TODAY),
            silent=bool(row.marks & _IS_SILENT), suspected=bool(row.marks & _SUSPECTED),
        )  # fmt: skip
        yield kind, row.boards


_MORE = (*COLUMNS, DeviceRow.phase, DeviceRow.last_seen, DeviceRow.enrolled,
         DeviceRow.suspected_clone)  # fmt: skip


def _one_by_one(session: Session, within: Reach, since: float, now: float) -> Mapping[Kind, int]:
    """The same of a part of the fleet, which only a look at each board tells."""
    found, boards = Counter[Kind](), Boards.of(session)
    for row in session.execute(boards.query(*_MORE, boards.assigned.label("assigned"))):
        if within.includes(facts_of_device(row)):
            seen = float("-inf") if row.last_seen is None else row.last_seen
            found[Kind(
                row.device_class, row.release, row.assigned, row.phase,
                lately=seen >= now - LATELY_SECONDS, today=seen >= now - DAY_SECONDS,
                silent=(row.enrolled if row.last_seen is None else seen) < since,
                suspected=row.suspected_clone is not None,
            )] += 1  # fmt: skip
    return found


def is_at_work() -> ColumnElement[bool]:
    """Returns the condition of an update being on the way to a board that is counted."""
    return and_(*STANDING, col(DeviceRow.phase).not_in(AT_REST))


def is_behind(session: Session) -> ColumnElement[bool]:
    """Returns the condition of a board not running what it was told to."""
    boards = Boards.of(session)
    return col(DeviceRow.id).in_(
        boards.query(DeviceRow.id).where(*boards.behind).correlate(None)
    )  # fmt: skip


def apart(session: Session, within: Reach) -> Apart:
    """Returns how many boards are revoked, and how many only measure."""
    revoked, measuring = col(DeviceRow.revoked).is_not(None), not_(col(DeviceRow.serves))
    if within.whole:
        first = case((revoked, 1))
        second = case((and_(not_(revoked), measuring), 1))
        return Apart(*session.execute(select(func.count(first), func.count(second))).one())
    rows = session.execute(select(*COLUMNS, DeviceRow.revoked).where(revoked | measuring))  # type: ignore[call-overload]
    found = Counter(
        each.revoked is not None for each in rows if within.includes(facts_of_device(each))
    )
    return Apart(found[True], found[False])


def stragglers(
    session: Session, within: Reach, quiet_seconds: float, now: float, known: Mapping[Kind, int]
) -> Iterator[Straggler]:
    """Yields some of the boards that lag behind.

    Args:
        session: Of the request.
        within: Only boards within.
        quiet_seconds: Who was not heard of for so long is silent.
        now: Unix seconds.
        known: As they were counted: where there is none, none is looked for at every board.
    """
    if any(kind.silent for kind in known):
        yield from _silent(session, within, now - quiet_seconds)
    if any(kind.behind for kind in known):
        yield from _behind(session, within, now - quiet_seconds)


def _silent(session: Session, within: Reach, since: float) -> Iterable[Straggler]:
    """Returns some boards that are silent; the figures tell how many there are."""
    query = select(*_MORE).where(*STANDING, since > _SILENT)  # type: ignore[call-overload]
    rows = _some(session, within, query)
    return [Straggler(row.id, row.device_class, "silent", row.last_seen) for row in rows]


def _behind(session: Session, within: Reach, since: float) -> Iterable[Straggler]:
    """Yields some boards that do not run what they were told to."""
    boards = Boards.of(session)
    query = boards.query(*_MORE, boards.assigned.label("assigned"))
    query = query.where(since <= _SILENT, *boards.behind)
    for row in _some(session, within, query):
        why = f"runs {row.release or 'nothing yet'}, assigned {row.assigned}"
        phase = row.phase.replace("_", " ")
        told = f"{why}: {phase}" if Phase(row.phase) in BACK else why
        yield Straggler(row.id, row.device_class, told, row.last_seen)


def _some(session: Session, within: Reach, query: Any) -> list[Row[Any]]:
    rows = session.execute(query.limit(_SHOWN if within.whole else 500))
    found = (row for row in rows if within.whole or within.includes(facts_of_device(row)))
    return [row for row, _ in zip(found, range(_SHOWN), strict=False)]
