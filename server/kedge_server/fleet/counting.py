"""Counts the fleet, or the part of it that somebody sees; the database does.

API, command line, console and metrics tell these numbers and no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, func, not_, select, true
from sqlmodel import Session, col

from kedge_server.accounts import reach
from kedge_server.accounts.principal import Reach
from kedge_server.devices import sieve
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
        counted: The board is let in, serves, and is within what is asked about.
        current: Releases that open rollouts bring, and the newest completed one brought.
        healthy: A board has proved healthy with a current release.
        assigned: What it was told to run; empty if nothing.
    """

    counted: ColumnElement[bool]
    current: tuple[str, ...]
    healthy: ColumnElement[bool]
    assigned: ColumnElement[str]

    @classmethod
    def of(cls, session: Session, within: ColumnElement[bool]) -> Boards:
        """Returns those within as rollouts stand now."""
        current = _current(session)
        healthy = and_(col(DeviceRow.phase) == "confirmed",
                       col(DeviceRow.release).in_(current))  # fmt: skip
        told = case((col(AssignmentRow.intent) == "hold", ""), else_=col(DeploymentRow.release))
        assigned = case((healthy, col(DeviceRow.release)), else_=func.coalesce(told, ""))
        return cls(and_(*STANDING, within), current, healthy, assigned)

    def settled(self, kind: Kind) -> bool:
        """Says of boards that were counted together whether :attr:`healthy` holds of them."""
        return kind.phase == "confirmed" and kind.release in self.current

    @property
    def behind(self) -> tuple[ColumnElement[bool], ...]:
        """What :attr:`Kind.behind` says of boards that were counted."""
        return (col(DeviceRow.phase).in_(AT_REST), not_(self.healthy), self.assigned != "",
                col(DeviceRow.release) != self.assigned)  # fmt: skip

    def query(self, *columns: Any) -> Any:
        """Returns a query over the boards that are counted."""
        told = and_(col(AssignmentRow.device) == col(DeviceRow.id), not_(self.healthy))
        what = col(DeploymentRow.id) == col(AssignmentRow.deployment)
        boards = select(*columns).select_from(DeviceRow).outerjoin(AssignmentRow, told)
        return boards.outerjoin(DeploymentRow, what).where(self.counted)


def kinds(session: Session, within: Reach, quiet_seconds: float, now: float) -> Mapping[Kind, int]:
    """Returns how many boards there are of each kind.

    Args:
        session: Of the request.
        within: Only boards within.
        quiet_seconds: Who was not heard of for so long is silent.
        now: Unix seconds.
    """
    boards, since = Boards.of(session, sieve.within(session, within)), now - quiet_seconds
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
    every = select(*columns).where(boards.counted)
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


def is_at_work() -> ColumnElement[bool]:
    """Returns the condition of an update being on the way to a board that is counted."""
    return and_(*STANDING, col(DeviceRow.phase).not_in(AT_REST))


def is_behind(session: Session) -> ColumnElement[bool]:
    """Returns the condition of a board not running what it was told to."""
    boards = Boards.of(session, true())
    return col(DeviceRow.id).in_(
        boards.query(DeviceRow.id).where(*boards.behind).correlate(None)
    )  # fmt: skip


def apart(session: Session, within: Reach) -> Apart:
    """Returns how many boards are revoked, and how many only measure."""
    revoked, measuring = col(DeviceRow.revoked).is_not(None), not_(col(DeviceRow.serves))
    counts = func.count(case((revoked, 1))), func.count(case((and_(not_(revoked), measuring), 1)))
    return Apart(*session.execute(select(*counts).where(sieve.within(session, within))).one())


def rollouts(session: Session, within: Reach) -> Mapping[str, int]:
    """Returns how many rollouts stand in which state, of those whose every board is within."""
    state = col(RolloutRow.state)
    query = select(state, func.count()).where(reach.covers(session, within)).group_by(state)
    return {row[0]: row[1] for row in session.execute(query)}


def stragglers(
    session: Session, within: Reach, quiet_seconds: float, now: float, known: Mapping[Kind, int]
) -> Iterator[Straggler]:
    """Yields some of the boards that lag behind; the figures tell how many there are.

    Args:
        session: Of the request.
        within: Only boards within.
        quiet_seconds: Who was not heard of for so long is silent.
        now: Unix seconds.
        known: As they were counted: where there is none, none is looked for at every board.
    """
    if not any(kind.silent or kind.behind for kind in known):
        return
    boards, since = Boards.of(session, sieve.within(session, within)), now - quiet_seconds
    if any(kind.silent for kind in known):
        yield from _silent(session, boards, since)
    if any(kind.behind for kind in known):
        yield from _behind(session, boards, since)


_NAMED = (DeviceRow.id, DeviceRow.device_class, DeviceRow.last_seen)


def _silent(session: Session, boards: Boards, since: float) -> Iterator[Straggler]:
    """Yields some boards that are silent."""
    query = select(*_NAMED).where(boards.counted, since > _SILENT).limit(_SHOWN)  # type: ignore[call-overload]
    for row in session.execute(query):
        yield Straggler(row.id, row.device_class, "silent", row.last_seen)


def _behind(session: Session, boards: Boards, since: float) -> Iterator[Straggler]:
    """Yields some boards that do not run what they were told to."""
    query = boards.query(
        *_NAMED, DeviceRow.release, DeviceRow.phase, boards.assigned.label("assigned")
    ).where(since <= _SILENT, *boards.behind)
    for row in session.execute(query.limit(_SHOWN)):
        why = f"runs {row.release or 'nothing yet'}, assigned {row.assigned}"
        phase = row.phase.replace("_", " ")
        told = f"{why}: {phase}" if Phase(row.phase) in BACK else why
        yield Straggler(row.id, row.device_class, told, row.last_seen)
