"""``/api/v1/device`` for boards, ``/api/v1/devices`` for operators."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from kedge_server.auth import Credentials, Device, Operator
from kedge_server.bodies import BoundedRoute, read_json
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.devices import intake, polling, service
from kedge_server.errors import RequestError, UnauthorizedError
from kedge_server.rollouts import service as rollouts
from kedge_shared.api import (
    DeploymentInfo,
    DeviceAssignment,
    DeviceInfo,
    EnrolmentToken,
    TokenRequest,
)
from kedge_shared.protocol import REPORT_LIMIT_BYTES, Enrolled, PollAnswer

router = APIRouter(tags=["devices"], route_class=BoundedRoute)


@router.post("/api/v1/enrolment-tokens", summary="Make one-time enrolment tokens")
def tokens(request: TokenRequest, services: Services, who: Operator) -> list[EnrolmentToken]:
    """Makes tokens; they are shown once."""
    with transaction(services.engine) as session:
        return service.make_tokens(session, request, who)


@router.post("/api/v1/enrol", summary="Enrol a device")
async def enrol(request: Request, services: Services, credentials: Credentials) -> Enrolled:
    """Takes a device into the fleet: a one-time token, and a request signed by the device's key."""
    if credentials is None:
        raise UnauthorizedError("no enrolment token", "send 'Authorization: Bearer TOKEN'")
    body = await read_json(request, REPORT_LIMIT_BYTES)
    if not isinstance(body, dict):
        raise RequestError("an enrolment is a signed message")

    def work() -> Enrolled:
        with transaction(services.engine) as session:
            answer, _hashed = service.enrol(session, credentials.credentials, body)
        services.follower.follow()
        return answer

    return await run_in_threadpool(work)


@router.get(
    polling.PATH,
    summary="What shall this device run?",
    response_model=PollAnswer,
    responses={304: {"description": "Nothing is new; freshness is not extended."}},
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
    services: Services, _: Operator, device_class: str = "", tag: str = ""
) -> list[DeviceInfo]:
    """Returns devices, by class and tag (``key:value``)."""
    with transaction(services.engine) as session:
        return service.search(session, device_class, tag)


@router.get("/api/v1/devices/{device}", summary="One device")
def show(device: str, services: Services, _: Operator) -> DeviceInfo:
    """Returns one device."""
    with transaction(services.engine) as session:
        return service.info(service.find(session, device))


@router.get("/api/v1/devices/{device}/assignment", summary="A device's assignment, for a bundle")
def assignment(device: str, services: Services, _: Operator) -> DeviceAssignment:
    """Returns what the device would be told if it polled now, signed by the director."""
    with transaction(services.engine) as session:
        row = services.director.assign(session, service.find(session, device).id)
        envelope = json.loads(row.envelope) if row else None
    return DeviceAssignment(device=device, assignment=envelope)


@router.get("/api/v1/devices/{device}/deployments", summary="A device's deployments")
def deployments(device: str, services: Services, _: Operator) -> list[DeploymentInfo]:
    """Returns everything that was ever deployed on a device, newest first."""
    with transaction(services.engine) as session:
        service.find(session, device)
        return rollouts.deployments(session, device=device)
