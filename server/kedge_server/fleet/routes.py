"""``/api/v1/fleet``."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter
from sqlmodel import Session, select

from kedge_server.accounts.principal import Reach
from kedge_server.accounts.reach import rollouts_within
from kedge_server.auth import MayRead
from kedge_server.context import Services
from kedge_server.database import now, transaction
from kedge_server.devices import pending
from kedge_server.fleet.counting import apart, kinds
from kedge_server.fleet.summary import classes, silent_after
from kedge_server.operation.expiry import expiries
from kedge_server.rollouts.tables import RolloutRow
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
            rollouts=_rollouts(session, who.reach),
            expires={role: each.timestamp() for role, each in expiries(session).items()},
            alarm=services.repository.alarm,
        )  # fmt: skip


def _rollouts(session: Session, within: Reach) -> dict[str, int]:
    rows = session.exec(select(RolloutRow.id, RolloutRow.state))
    states = dict(list(rows))
    reached = states if within.whole else rollouts_within(session, within)
    return dict(Counter(state for name, state in states.items() if name in reached))
