"""A board's way into the fleet: once, by a one-time token."""

from __future__ import annotations

import asyncio
import random
import sys

from kedge_agent import facts, identity
from kedge_agent.identity import Enrolling, Identity
from kedge_agent.network.backoff import meaning, next_poll
from kedge_agent.server_client import ServerClient
from kedge_shared.errors import InputError, ServiceError

#: A server that is away is asked that often in the end.
_INTERVAL_SECONDS = 60.0


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
    failures = 0
    while True:
        try:
            return identity.keep(settings.state_dir, await server.enrol(envelope, token))
        except ServiceError as error:
            failures += 1
            if meaning(error.status) == "refused":
                raise InputError(
                    f"enrolment is refused: {error.what}",
                    f"make a token with `kedge device token` and set {identity.TOKEN_ENV}",
                ) from None
            print(f"enrolment: {error}", file=sys.stderr, flush=True)
            draw = random.random()  # noqa: S311
            wait = next_poll(_INTERVAL_SECONDS, failures, "busy", draw, error.retry_after)
            await asyncio.sleep(wait)
