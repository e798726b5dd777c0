"""Who runs which engine: one count over the fleet, kept for as long as it may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastapi import Request
from sqlmodel import Session, col, func, select

from kedge_server.accounts.principal import Principal, Reach
from kedge_server.console.figures import figures
from kedge_server.console.kept import Figure
from kedge_server.context import Context
from kedge_server.database import transaction
from kedge_server.devices import sieve
from kedge_server.devices.tables import DeviceRow
from kedge_server.fleet.counting import STANDING

#: (device class, release, hash of the engine) → boards.
Running = Mapping[tuple[str, str, str], int]
_RUNNING = (*STANDING, col(DeviceRow.engine) != "")


def running(request: Request, services: Context, who: Principal) -> Figure[Running]:
    """Returns how many boards run what, of those that somebody sees."""

    def work() -> Running:
        with transaction(services.engine) as session:
            return count(session, who.reach)

    return figures(request).running.get(who.scopes, work)


def count(session: Session, within: Reach) -> Running:
    """Returns how many boards run what."""
    kind = (col(DeviceRow.device_class), col(DeviceRow.release), col(DeviceRow.engine))
    query = select(*kind, func.count()).where(*_RUNNING, sieve.within(session, within))
    return {(row[0], row[1], row[2]): row[3] for row in session.execute(query.group_by(*kind))}


def boards_on(found: Running, device_class: str, release: str, engine: str) -> int:
    """Returns how many boards of a class run a build."""
    return found.get((device_class, release, engine), 0)


def boards_with(found: Running, builds: Iterable[tuple[str, str, str]]) -> int:
    """Returns how many boards run any of several builds, each (class, release, engine)."""
    return sum(boards_on(found, *each) for each in builds)
