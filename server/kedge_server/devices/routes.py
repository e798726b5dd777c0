"""``/api/v1/device`` for boards, ``/api/v1/devices`` for operators."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from kedge_server.auth import Device, MayRead, device_of
from kedge_server.bodies import BoundedRoute, read_json
from kedge_server.context import Context, Services
from kedge_server.database import transaction
from kedge_server.devices import service
from kedge_server.devices.index import Entry
from kedge_server.errors import RequestError, UnauthorizedError
from kedge_server.rollouts import service as rollouts
from kedge_shared import wire
from kedge_shared.api import (
    DeploymentInfo,
    DeviceAssignment,
    DeviceInfo,
)
from kedge_shared.protocol import (
    HEADER_COUNTER,
    HEADER_INTERVAL,
    HEADER_NONCE,
    HEADER_TIMESTAMP,
    REPORT_BATCH,
    REPORT_LIMIT_BYTES,
    PollAnswer,
)

router = APIRouter(tags=["devices"], route_class=BoundedRoute)
#: Unix time has ten; a board that lies about its counter harms nobody but itself.
_COUNTER_DIGITS = 15


@router.get(
    "/api/v1/device/poll",
    summary="What shall this device run?",
    response_model=PollAnswer,
    responses={304: {"description": "Nothing is new; freshness is not extended."}},
    openapi_extra={"security": [{"deviceToken": []}]},
)
async def poll(request: Request) -> Response:
    """Answers from memory; the database is asked only after something changed."""
    services: Context = request.app.state.context
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    device = device_of(services, token) if scheme.lower() == "bearer" else None
    if device is None:
        raise UnauthorizedError("this token is no device's")
    services.index.saw(device)
    entry, seen = services.index.entry(device), _counter(request)
    if entry is None or entry.counter < seen:
        entry = await run_in_threadpool(_make_entry, services, device, seen)
    headers = {
        "ETag": entry.etag,
        HEADER_INTERVAL: f"{services.settings.poll_seconds:g}",
        HEADER_TIMESTAMP: str(services.repository.timestamp_version),
        HEADER_NONCE: services.access.nonce().nonce,
        "Cache-Control": "no-store",
    }
    if request.headers.get("if-none-match") == entry.etag:
        return Response(status_code=304, headers=headers)
    return Response(entry.body, media_type="application/json", headers=headers)


def _counter(request: Request) -> int:
    """Returns the newest counter the board says it has accepted; nonsense counts as none."""
    text = request.headers.get(HEADER_COUNTER, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _COUNTER_DIGITS else 0


def _make_entry(services: Context, device: str, seen: int = 0) -> Entry:
    generation = services.index.generation
    with transaction(services.engine) as session:
        row = services.director.assign(session, service.find(session, device), seen)
        version = services.repository.timestamp_version
        answer = PollAnswer(
            assignment=json.loads(row.envelope) if row else None,
            timestamp_version=version,
            next_poll_seconds=services.settings.poll_seconds,
            nonce=services.access.nonce().nonce,
        )
        etag = f'"{row.counter if row else 0}-{version}"'
        until = row.issued + (row.expires - row.issued) / 2 if row else float("inf")
    entry = Entry(etag, row.counter if row else 0, wire.encode(answer), until)
    services.index.put(device, entry, generation)
    return entry


@router.post("/api/v1/device/reports", summary="Take signed reports")
async def reports(request: Request, services: Services, device: Device) -> dict[str, int]:
    """Takes up to 50 reports, each once by (device, boot_id, seq)."""
    body = await read_json(request, REPORT_LIMIT_BYTES * 8)
    if not isinstance(body, list) or len(body) > REPORT_BATCH:
        raise RequestError(f"reports are a list of at most {REPORT_BATCH}")
    if not all(isinstance(each, dict) for each in body):
        raise RequestError("a report is a signed message")

    def work() -> tuple[int, int]:
        with transaction(services.engine) as session:
            return service.take_reports(session, device, body)

    accepted, duplicates = await run_in_threadpool(work)
    if accepted:
        services.index.forget_all()
    elif duplicates:
        # They may have shown that the board is two.
        services.index.forget([device])
    return {"accepted": accepted, "duplicates": duplicates}


@router.get("/api/v1/devices", summary="Devices of the fleet")
def search(
    services: Services, who: MayRead, device_class: str = "", tag: str = ""
) -> list[DeviceInfo]:
    """Returns devices within one's scope, by class and tag (``key:value``)."""
    with transaction(services.engine) as session:
        return service.search(session, device_class, tag, who.reach)


@router.get("/api/v1/devices/{device}", summary="One device")
def show(device: str, services: Services, _: MayRead) -> DeviceInfo:
    """Returns one device."""
    with transaction(services.engine) as session:
        return service.info(service.find(session, device))


@router.get("/api/v1/devices/{device}/assignment", summary="A device's assignment, for a bundle")
def assignment(device: str, services: Services, _: MayRead) -> DeviceAssignment:
    """Returns what the device would be told if it polled now, signed by the director."""
    with transaction(services.engine) as session:
        row = services.director.assign(session, service.find(session, device))
        envelope = json.loads(row.envelope) if row else None
    return DeviceAssignment(device=device, assignment=envelope)


@router.get("/api/v1/devices/{device}/deployments", summary="A device's deployments")
def deployments(device: str, services: Services, _: MayRead) -> list[DeploymentInfo]:
    """Returns everything that was ever deployed on a device, newest first."""
    with transaction(services.engine) as session:
        service.find(session, device)
        return rollouts.deployments(session, device=device)
