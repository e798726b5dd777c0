"""A board's way into the fleet: once, by a one-time token."""

from __future__ import annotations

import asyncio
import sys

from kedge_agent import facts, identity
from kedge_agent.identity import Enrolling, Identity
from kedge_agent.server_client import ServerClient
from kedge_shared.errors import InputError, ServiceError

_WAIT_SECONDS = 5.0


async def enrolled(settings: Enrolling, server: ServerClient) -> Identity:
    """Returns who this board is, enrolling it first if need be.

    Raises:
        InputError: There is no token, or the server refuses it.
    """
    known = identity.load(settings.state_dir)
    if known is not None:
        return known
    envelope = identity.request(settings, await asyncio.to_thread(facts.gather))
    token = identity.enrolment_token(settings)
    while True:
        try:
            return identity.keep(settings.state_dir, await server.enrol(envelope, token))
        except ServiceError as error:
            if error.status is not None and 400 <= error.status < 500:
                raise InputError(
                    f"enrolment is refused: {error.what}",
                    f"make a token with `kedge device token` and set {identity.TOKEN_ENV}",
                ) from None
            print(f"enrolment: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(_WAIT_SECONDS)
