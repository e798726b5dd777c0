"""``/api/v1/device`` for boards, ``/api/v1/devices`` for operators."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query

from kedge_server.accounts.principal import Reach
from kedge_server.auth import Device, MayManage, MayRead
from kedge_server.bodies import BoundedRoute
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.devices import desk, intake, polling, service
from kedge_server.rollouts import service as rollouts
from kedge_shared.api import (
    DeploymentInfo,
    DeviceAssignment,
    DeviceInfo,
)
from kedge_shared.fleet import PAGE_MOST, TagsChange, TagsChanged
from kedge_shared.protocol import PollAnswer
from kedge_shared.rollouts import SELECTOR_MOST

router = APIRouter(tags=["devices"], route_class=BoundedRoute)


@router.get(
    polling.PATH,
    summary="What shall this device run?",
    response_model=PollAnswer,
    responses={304: {"description": "Nothing is new; freshness is not extended."}},
    openapi_extra={"security": [{"deviceToken": []}]},
)
def poll(_: Device) -> None:
    """Answers from memory; the database is asked only after something changed."""
    raise RuntimeError("polls are answered before routing, in devices/polling.py")


@router.post(intake.PATH, summary="Take signed reports")
def reports(_: Device) -> intake.Taken:
    """Takes up to 50 reports, each once by (device, boot_id, seq)."""
    raise RuntimeError("reports are taken before routing, in devices/intake.py")


@router.get("/api/v1/devices", summary="Devices of the fleet")
def search(
    services: Services,
    who: MayRead,
    device_class: str = "",
    tag: Annotated[str, Query(description="`key:value`.")] = "",
    selector: Annotated[str, Query(max_length=SELECTOR_MOST, description="RSQL.")] = "",
    after: Annotated[str, Query(description="The last name of the page before.")] = "",
    most: Annotated[int | None, Query(ge=1, le=PAGE_MOST, description="None is all.")] = None,
) -> list[DeviceInfo]:
    """Returns devices within one's scope, by name."""
    within = Reach((*who.reach.selectors, *Reach.of(selector).selectors))
    with transaction(services.engine) as session:
        return service.search(session, device_class, tag, within, after, most)


@router.post("/api/v1/device-tags", summary="Change tags of devices")
def tag(change: TagsChange, services: Services, who: MayManage) -> TagsChanged:
    """Sets and drops tags of devices within one's scope: of all that are named, or of none.

    A device that enrols anew brings its own tags.
    """
    return desk.tag(services, change, who)


@router.get("/api/v1/devices/{device}", summary="One device")
def show(device: str, services: Services, _: MayRead) -> DeviceInfo:
    """Returns one device."""
    with transaction(services.engine) as session:
        return service.info(service.find(session, device))


@router.get("/api/v1/devices/{device}/assignment", summary="A device's assignment, for a bundle")
def assignment(device: str, services: Services, _: MayRead) -> DeviceAssignment:
    """Returns what the device would be told if it polled now, signed by the director."""
    with transaction(services.engine) as session:
        row = services.director.assign(session, service.find(session, device).id)
        envelope = json.loads(row.envelope) if row else None
    return DeviceAssignment(device=device, assignment=envelope)


@router.get("/api/v1/devices/{device}/deployments", summary="A device's deployments")
def deployments(device: str, services: Services, _: MayRead) -> list[DeploymentInfo]:
    """Returns everything that was ever deployed on a device, newest first."""
    with transaction(services.engine) as session:
        service.find(session, device)
        return rollouts.deployments(session, device=device)
