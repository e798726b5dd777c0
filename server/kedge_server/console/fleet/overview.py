"""The fleet in figures: one look over all boards, kept by what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Row, case, func, select
from sqlmodel import Session, col

from kedge_server.accounts.principal import Reach
from kedge_server.devices.facts import COLUMNS, facts_of_device
from kedge_server.devices.tables import DeviceRow
from kedge_server.releases.tables import BuildRow
from kedge_server.rollouts.membership import OPEN_ROLLOUTS
from kedge_server.rollouts.tables import RolloutRow

#: A board that has missed so many polls is silent; and nobody is silent before so many seconds.
_MISSED, _LEAST_SECONDS = 5, 600.0
_SHOWN = 12
_NONE = "none yet"

Kind = tuple[str, str, str, bool]


@dataclass(frozen=True)
class ClassShare:
    """Boards of a device class.

    Attributes:
        name: The class.
        devices: How many.
        releases: Release and boards that run it, most first.
        wanted: Release that the newest completed rollout brought to the class; empty: none.
        fine: Releases that a board may run: that one, and those of open rollouts.
        behind: Boards that run another, or none.
        silent: Boards that have not been heard of for too long.
    """

    name: str
    devices: int
    releases: tuple[tuple[str, int], ...]
    wanted: str
    fine: tuple[str, ...]
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
        behind: Those that do not run what the newest completed rollout brought.
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
    classes = _classes(kinds, wanted_releases(session), _on_the_way(session))
    behind = sum(each.behind for each in classes)
    return Overview(
        devices=sum(kinds.values()), silent=sum(each.silent for each in classes),
        at_work=sum(count for kind, count in kinds.items() if kind[2] == "at work"),
        behind=behind, silent_seconds=quiet, classes=classes,
        suspected=suspected,
        stragglers=tuple(_stragglers(session, within, classes, now - quiet)),
    )  # fmt: skip


_RESTING = ("idle", "confirmed", "rolled_back", "refused")


def _counted(session: Session, _: Reach, since: float) -> tuple[Counter[Kind], int]:
    """Returns boards by class, release, whether they are at work and silent; and the suspected."""
    work = case((col(DeviceRow.phase).in_(_RESTING), ""), else_="at work")
    silent = func.coalesce(col(DeviceRow.last_seen), col(DeviceRow.enrolled)) < since
    each = (
        select(col(DeviceRow.device_class), col(DeviceRow.release), work.label("work"),
               silent.label("silent"), col(DeviceRow.suspected_clone).label("suspected"))
        .where(*_STANDING)
        .subquery()
    )  # fmt: skip
    groups = (each.c.device_class, each.c.release, each.c.work, each.c.silent)
    query = select(*groups, func.count(), func.count(each.c.suspected)).group_by(*groups)
    rows = session.execute(query).all()
    kinds = Counter({(row[0], row[1], row[2], bool(row[3])): row[4] for row in rows})
    return kinds, sum(row[5] for row in rows)


_STANDING = (col(DeviceRow.revoked).is_(None), col(DeviceRow.serves))
_MORE = (*COLUMNS, DeviceRow.phase, DeviceRow.last_seen, DeviceRow.enrolled,
         DeviceRow.suspected_clone)  # fmt: skip


def _within(session: Session, within: Reach, since: float) -> tuple[Counter[Kind], int]:
    """The same for a part of the fleet, which only a look at each board tells."""
    found, suspected = Counter[Kind](), 0
    for row in session.execute(select(*_MORE).where(*_STANDING)):  # type: ignore[call-overload]
        if within.includes(facts_of_device(row)):
            work = "" if row.phase in _RESTING else "at work"
            silent = (row.last_seen or row.enrolled) < since
            found[row.device_class, row.release, work, silent] += 1
            suspected += row.suspected_clone is not None
    return found, suspected


def wanted_releases(session: Session) -> dict[str, str]:
    """Returns device class → what the newest completed rollout of the whole fleet brought it."""
    newest = session.execute(
        select(col(RolloutRow.model), col(RolloutRow.release))
        .where(col(RolloutRow.state) == "completed")
        .order_by(col(RolloutRow.order).desc())
        .limit(1)
    ).first()
    if newest is None:
        return {}
    builds = select(col(BuildRow.device_class)).where(
        col(BuildRow.model) == newest.model, col(BuildRow.release) == newest.release
    )
    return dict.fromkeys(session.execute(builds).scalars(), newest.release)


def _on_the_way(session: Session) -> tuple[str, ...]:
    """Returns the releases of open rollouts."""
    query = select(col(RolloutRow.release)).where(col(RolloutRow.state).in_(OPEN_ROLLOUTS))
    return tuple(sorted(set(session.execute(query).scalars())))


def _classes(
    kinds: Mapping[Kind, int], wanted: Mapping[str, str], coming: tuple[str, ...]
) -> tuple[ClassShare, ...]:
    names = Counter[str]()
    for (name, *_), count in kinds.items():
        names[name] += count
    return tuple(
        _class_share(
            name,
            {kind: n for kind, n in kinds.items() if kind[0] == name},
            wanted.get(name, ""),
            coming,
        )
        for name, _ in names.most_common()
    )


def _class_share(
    name: str, kinds: Mapping[Kind, int], wanted: str, coming: tuple[str, ...]
) -> ClassShare:
    releases = Counter[str]()
    for (_, release, _, _), count in kinds.items():
        releases[release or _NONE] += count
    devices, fine = sum(kinds.values()), tuple(dict.fromkeys((wanted, *coming)))
    return ClassShare(
        name=name, devices=devices, releases=tuple(releases.most_common()), wanted=wanted,
        fine=fine, silent=sum(count for kind, count in kinds.items() if kind[3]),
        behind=devices - sum(releases[each] for each in fine) if wanted else 0,
    )  # fmt: skip


def _stragglers(
    session: Session, within: Reach, classes: Iterable[ClassShare], since: float
) -> Iterable[Straggler]:
    """Yields some boards of each kind that lag behind; the figures tell how many there are."""
    silent = func.coalesce(col(DeviceRow.last_seen), col(DeviceRow.enrolled))
    for row in _some(session, within, silent < since):
        yield Straggler(row.id, row.device_class, "silent", row.last_seen)
    for each in classes:
        if not each.behind:
            continue
        mine = (col(DeviceRow.device_class) == each.name, col(DeviceRow.release).not_in(each.fine),
                silent >= since)  # fmt: skip
        for row in _some(session, within, *mine):
            why = f"runs {row.release or 'nothing yet'}, not {each.wanted}"
            yield Straggler(row.id, row.device_class, why, row.last_seen)


def _some(
    session: Session, within: Reach, *conditions: object
) -> Iterable[Row[tuple[object, ...]]]:
    query = select(*_MORE).where(*_STANDING, *conditions).limit(_SHOWN if within.whole else 500)  # type: ignore[call-overload]
    rows = session.execute(query)
    found = (row for row in rows if within.whole or within.includes(facts_of_device(row)))
    return [row for row, _ in zip(found, range(_SHOWN), strict=False)]
