"""What a board's key opens, and how operators shut a board out."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from kedge_server.auth import MayManage
from kedge_server.bodies import SIGNED_BODY, read_signed
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.devices import desk, keys
from kedge_shared.access import ACCESS_LIMIT_BYTES, AccessToken, KeyChanged, Nonce
from kedge_shared.api import DeviceInfo

router = APIRouter(tags=["devices"])


@router.post("/api/v1/device/nonce", summary="A nonce to sign")
async def nonce(services: Services) -> Nonce:
    """Returns a nonce; it proves itself, so that nothing is kept of those who only ask."""
    return services.access.nonce()


@router.post("/api/v1/device/token", summary="An access token", openapi_extra=SIGNED_BODY)
async def token(request: Request, services: Services) -> AccessToken:
    """Returns a short-lived token to a board that signed a nonce with its key."""
    body = await read_signed(request, ACCESS_LIMIT_BYTES)

    def work() -> AccessToken:
        with transaction(services.engine) as session:
            made, suspected = keys.access(session, services.access, services.throttle, body)
        if suspected is not None:
            services.follower.follow()
        return made

    return await run_in_threadpool(work)


@router.post("/api/v1/device/key", summary="Change a board's key", openapi_extra=SIGNED_BODY)
async def change(request: Request, services: Services) -> KeyChanged:
    """Puts a new key in the old one's place, by a request that both have signed."""
    body = await read_signed(request, ACCESS_LIMIT_BYTES)

    def work() -> KeyChanged:
        with transaction(services.engine) as session:
            changed = keys.change_key(session, services.access, body)
        services.follower.follow()
        return changed

    return await run_in_threadpool(work)


@router.post("/api/v1/devices/{device}/revoke", summary="Refuse a board from now on")
def revoke(device: str, services: Services, who: MayManage) -> DeviceInfo:
    """Refuses a board at its next request, and its key for ever; with another it may come back."""
    return desk.revoke(services, device, who)


@router.post("/api/v1/devices/{device}/clear", summary="A suspected clone is none")
def clear(device: str, services: Services, who: MayManage) -> DeviceInfo:
    """Says that a person has looked and there is one board with this key."""
    return desk.clear(services, device, who)
