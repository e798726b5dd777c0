"""``/api/v1/enrol`` for boards; tokens, the pending queue and announced keys for operators."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from kedge_server.auth import EnrolmentToken, MayEnrol
from kedge_server.bodies import SIGNED_BODY, BoundedRoute, read_signed
from kedge_server.context import Context, Services
from kedge_server.database import transaction
from kedge_server.devices import desk, enrolment, pending
from kedge_server.devices.enrolment import Admitted
from kedge_server.errors import BusyError
from kedge_server.throttle import Rate, network
from kedge_shared import api
from kedge_shared.admission import AnnouncedKey, AnnouncedKeys, PendingDevice, Waiting
from kedge_shared.protocol import REPORT_LIMIT_BYTES, Enrolled

router = APIRouter(tags=["admission"], route_class=BoundedRoute)
#: Of one address: a site's boards behind one router start together after a power cut.
_ASKING = Rate(100, 1.0)


@router.post("/api/v1/enrolment-tokens", summary="Make one-time enrolment tokens")
def tokens(
    request: api.TokenRequest, services: Services, who: MayEnrol
) -> list[api.EnrolmentToken]:
    """Makes tokens; they are shown once."""
    with transaction(services.engine) as session:
        return enrolment.make_tokens(session, request, str(who))


@router.post(
    "/api/v1/enrol", summary="Enrol a device", openapi_extra=SIGNED_BODY,
    responses={202: {"model": Waiting, "description": "It waits for a person's approval."}},
)  # fmt: skip
async def enrol(
    request: Request, response: Response, services: Services, credentials: EnrolmentToken
) -> Enrolled | Waiting:
    """Takes a device into the fleet, by a request signed with the device's key.

    With a one-time token, or an announced key, at once; else it waits for a person.
    """
    address = request.client.host if request.client else ""
    if credentials is None:
        wait = services.throttle.spend(("enrol", network(address)), _ASKING, time.time())
        if wait:
            raise BusyError("too many ask from this address", retry_after=wait)
    body = await read_signed(request, REPORT_LIMIT_BYTES)

    def work() -> Admitted | Waiting:
        found: Admitted | Waiting
        with transaction(services.engine) as session:
            if credentials is not None:
                found = enrolment.with_token(session, credentials.credentials, body)
            else:
                found = enrolment.without_token(session, body, address, _limits(services))
        services.follower.follow()
        return found

    found = await run_in_threadpool(work)
    if isinstance(found, Waiting):
        response.status_code = 202
        return found
    return found.answer


@router.get("/api/v1/pending-devices", summary="Boards that wait for approval")
def waiting(services: Services, _: MayEnrol) -> list[PendingDevice]:
    """Returns who asked without a token, oldest first; those that were rejected too."""
    with transaction(services.engine) as session:
        return pending.waiting(session)


@router.post("/api/v1/pending-devices/{fingerprint}/approve", summary="Take a board in")
def approve(fingerprint: str, services: Services, who: MayEnrol) -> Enrolled:
    """Takes a board in that waits; its fingerprint is to be compared with what it shows."""
    return desk.approve(services, fingerprint, who)


@router.post("/api/v1/pending-devices/{fingerprint}/reject", summary="Refuse a board")
def reject(fingerprint: str, services: Services, who: MayEnrol) -> PendingDevice:
    """Refuses a board that waits; it may be approved after all while it is listed."""
    return desk.reject(services, fingerprint, who)


@router.get("/api/v1/announced-keys", summary="Keys whose boards need no approval")
def announced(services: Services, _: MayEnrol) -> list[AnnouncedKey]:
    """Returns the keys that were announced, with the boards that came."""
    with transaction(services.engine) as session:
        return pending.announced(session)


@router.post("/api/v1/announced-keys", summary="Announce keys, of a factory's list")
def announce(keys: AnnouncedKeys, services: Services, who: MayEnrol) -> list[AnnouncedKey]:
    """Takes boards with these keys in as they come; harmless to repeat."""
    with transaction(services.engine) as session:
        return pending.announce(session, keys, str(who))


@router.post("/api/v1/announced-keys/{fingerprint}/withdraw", summary="Announce a key no more")
def withdraw(fingerprint: str, services: Services, who: MayEnrol) -> AnnouncedKey:
    """Takes an announcement back; a board that came in by it stays (`kedge device revoke`)."""
    with transaction(services.engine) as session:
        return pending.withdraw(session, fingerprint, str(who))


def _limits(services: Context) -> pending.Limits:
    told = services.settings
    return pending.Limits(told.pending_limit, told.pending_hours * 3600, told.poll_seconds)
