"""The door for whoever is confined to a part of the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlmodel import Session, col, select

from kedge_server.accounts.principal import Reach
from kedge_server.devices.facts import facts_of_device
from kedge_server.devices.tables import DeviceRow
from kedge_server.errors import NotFoundError
from kedge_server.rollouts.tables import DeploymentRow


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
    if "rollout" in named and named["rollout"] not in rollouts_within(
        session, reach, [named["rollout"]]
    ):
        raise NotFoundError(f"there is no rollout {named['rollout']}", "`kedge rollout list`")


def rollouts_within(
    session: Session, reach: Reach, only: list[str] | None = None
) -> frozenset[str]:
    """Returns the rollouts whose every board is within; one of mixed boards is for others.

    Args:
        session: Of the request.
        reach: Not the whole fleet.
        only: Of these; ``None`` is of all.
    """
    members = select(DeploymentRow.rollout, DeviceRow).where(DeploymentRow.device == DeviceRow.id)
    if only is not None:
        members = members.where(col(DeploymentRow.rollout).in_(only))
    inside: dict[str, bool] = {}
    for rollout, device in session.exec(members):
        within = inside.get(rollout, True) and reach.includes(facts_of_device(device))
        inside[rollout] = within
    return frozenset(rollout for rollout, within in inside.items() if within)
