"""The door for whoever is confined to a part of the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, not_, true
from sqlmodel import Session, col, select

from kedge_server.accounts.principal import Reach
from kedge_server.devices import sieve
from kedge_server.devices.facts import facts_of_device
from kedge_server.devices.tables import DeviceRow
from kedge_server.errors import NotFoundError
from kedge_server.rollouts.tables import DeploymentRow, RolloutRow


def check(session: Session, reach: Reach, named: Mapping[str, Any]) -> None:
    """Checks the device or rollout that a path names.

    What is outside is answered as if it were not there.

    Raises:
        NotFoundError: It is outside.
    """
    if reach.whole:
        return
    if "device" in named:
        row = session.get(DeviceRow, named["device"])
        if row is None or not reach.includes(facts_of_device(row)):
            raise NotFoundError(f"there is no device {named['device']}", "`kedge device list`")
    if "rollout" in named:
        within = col(RolloutRow.id) == named["rollout"], covers(session, reach)
        if session.exec(select(RolloutRow.id).where(*within)).first() is None:
            raise NotFoundError(f"there is no rollout {named['rollout']}", "`kedge rollout list`")


def covers(session: Session, reach: Reach) -> ColumnElement[bool]:
    """Returns the condition of a rollout's every board being within; a mixed one is for others."""
    if reach.whole:
        return true()
    members = select(DeploymentRow.id).where(
        col(DeploymentRow.rollout) == col(RolloutRow.id)
    ).correlate(RolloutRow)  # fmt: skip
    outside = members.join(DeviceRow, col(DeviceRow.id) == col(DeploymentRow.device)).where(
        not_(sieve.within(session, reach))
    )
    return and_(members.exists(), not_(outside.exists()))
