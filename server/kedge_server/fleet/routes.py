"""``/api/v1/fleet``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from sqlmodel import Session, select

from kedge_server.accounts.principal import Reach
from kedge_server.accounts.reach import rollouts_within
from kedge_server.auth import MayRead
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.devices import pending
from kedge_server.devices.facts import facts_of_device
from kedge_server.devices.tables import DeviceRow
from kedge_server.fleet.summary import count
from kedge_server.operation.expiry import expiries
from kedge_server.rollouts.tables import RolloutRow
from kedge_shared.fleet import FleetInfo

router = APIRouter(prefix="/api/v1/fleet", tags=["fleet"])

#: Columns, not entities: this reads the whole fleet.
_COLUMNS = (
    DeviceRow.id, DeviceRow.device_class, DeviceRow.facts, DeviceRow.tags, DeviceRow.release,
    DeviceRow.phase, DeviceRow.last_seen, DeviceRow.serves, DeviceRow.revoked,
    DeviceRow.suspected_clone,
)  # fmt: skip


@router.get("", summary="How the fleet is")
def fleet(services: Services, who: MayRead) -> FleetInfo:
    """Returns boards by class, phase and release, rollouts by state, and what runs out when."""
    now = time.time()
    with transaction(services.engine) as session:
        counted = count(_boards(session, who.reach), now)
        return FleetInfo(
            at=now, classes=counted.classes, revoked=counted.revoked, measuring=counted.measuring,
            pending=pending.count(session) if who.reach.whole else None,
            rollouts=_rollouts(session, who.reach),
            expires={role: each.timestamp() for role, each in expiries(session).items()},
            alarm=services.repository.alarm,
        )  # fmt: skip


def _boards(session: Session, within: Reach) -> Iterable[Any]:
    rows = session.execute(select(*_COLUMNS))  # type: ignore[call-overload]
    return (each for each in rows if within.whole or within.includes(facts_of_device(each)))


def _rollouts(session: Session, within: Reach) -> dict[str, int]:
    rows = session.exec(select(RolloutRow.id, RolloutRow.state))
    states = dict(list(rows))
    reached = states if within.whole else rollouts_within(session, within)
    return dict(Counter(state for name, state in states.items() if name in reached))
