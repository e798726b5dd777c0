"""``/api/v1/fleet``."""

from __future__ import annotations

from fastapi import APIRouter

from kedge_server.auth import MayRead
from kedge_server.context import Services
from kedge_server.database import now, transaction
from kedge_server.devices import pending
from kedge_server.fleet.counting import apart, kinds, rollouts
from kedge_server.fleet.summary import classes, silent_after
from kedge_server.operation.expiry import expiries
from kedge_shared.fleet import FleetInfo

router = APIRouter(prefix="/api/v1/fleet", tags=["fleet"])


@router.get("", summary="How the fleet is")
def fleet(services: Services, who: MayRead) -> FleetInfo:
    """Returns boards by class, phase and release, rollouts by state, and what runs out when."""
    quiet = silent_after(services.settings.poll_seconds)
    with transaction(services.engine) as session:
        at = now(session)
        found = kinds(session, who.reach, quiet, at)
        return FleetInfo(
            at=at, classes=classes(found), silent_seconds=quiet,
            **apart(session, who.reach)._asdict(),
            pending=pending.count(session) if who.reach.whole else None,
            rollouts=dict(rollouts(session, who.reach)),
            expires={role: each.timestamp() for role, each in expiries(session).items()},
            alarm=services.repository.alarm,
        )  # fmt: skip
