"""Who asks: the operator by the operator's token, a device by its own."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated

from fastapi import Depends, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from kedge_server.context import Context, Services
from kedge_server.errors import UnauthorizedError

_bearer = HTTPBearer(auto_error=False, description="Operator token or device token.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def token_hash(token: str) -> str:
    """Returns how a token is stored: tokens are random, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def _hash_of(credentials: HTTPAuthorizationCredentials | None) -> str:
    if credentials is None:
        raise UnauthorizedError("no token", "send 'Authorization: Bearer TOKEN'")
    return token_hash(credentials.credentials)


def operator(credentials: Credentials, services: Services) -> str:
    """Returns who the operator is.

    Raises:
        UnauthorizedError: No or another token.
    """
    if not hmac.compare_digest(_hash_of(credentials), services.operator_hash):
        raise UnauthorizedError("this token is not the operator's")
    return "operator"


def device_of(services: Context, authorization: bytes) -> str:
    """Returns which device asks, from the header alone: what polls and reports are checked by.

    Raises:
        UnauthorizedError: No token, or no device's.
    """
    scheme, _, token = authorization.decode("latin-1").partition(" ")
    found = services.index.device_of(token_hash(token)) if scheme.lower() == "bearer" else None
    if found is None:
        raise UnauthorizedError("this token is no device's")
    return found


async def device_of_soon(services: Context, authorization: bytes) -> str:
    """Returns which device asks, also if another server enrolled it a moment ago.

    Raises:
        UnauthorizedError: No token, or no device's.
    """
    try:
        return device_of(services, authorization)
    except UnauthorizedError:
        if not await run_in_threadpool(services.follower.hurry):
            raise
    return device_of(services, authorization)


def device(credentials: Credentials, services: Services) -> str:
    """Returns which device asks.

    Raises:
        UnauthorizedError: No or an unknown token.
    """
    hashed = _hash_of(credentials)
    found = services.index.device_of(hashed)
    if found is None and services.follower.hurry():
        found = services.index.device_of(hashed)
    if found is None:
        raise UnauthorizedError("this token is no device's")
    return found


def anyone(credentials: Credentials, services: Services) -> str:
    """Returns who asks, operator or device.

    Raises:
        UnauthorizedError: Neither.
    """
    if hmac.compare_digest(_hash_of(credentials), services.operator_hash):
        return "operator"
    return device(credentials, services)


Operator = Annotated[str, Depends(operator)]
Device = Annotated[str, Depends(device)]
AnyToken = Annotated[str, Depends(anyone)]
