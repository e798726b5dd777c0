"""A board's way into the fleet: once, by a one-time token, an announced key or an approval."""

from __future__ import annotations

import asyncio
import random
import sys

from kedge_agent import access, facts, identity
from kedge_agent.identity import Enrolling, Identity
from kedge_agent.network.backoff import meaning, next_poll
from kedge_agent.server_client import ServerClient
from kedge_shared.admission import Waiting
from kedge_shared.errors import InputError, ServiceError

#: A server that is away is asked that often in the end.
_INTERVAL_SECONDS = 60.0


async def enrolled(settings: Enrolling, server: ServerClient) -> Identity:
    """Returns who this board is, enrolling it or changing its key first if need be.

    Raises:
        InputError: The server refuses it.
    """
    known = identity.load(settings.state_dir)
    if known is None:
        return await _enter(settings, server)
    if access.wants_key_change(settings.state_dir):
        known = await _with_another_key(settings, server, known)
    return known


async def _enter(settings: Enrolling, server: ServerClient) -> Identity:
    envelope = identity.request(settings, await asyncio.to_thread(facts.gather))
    token = identity.enrolment_token(settings)
    failures, told = 0, False
    while True:
        try:
            answer = await server.enrol(envelope, token)
        except ServiceError as error:
            failures += 1
            if meaning(error.status) == "refused":
                raise InputError(
                    f"enrolment is refused: {error.what}",
                    f"make a token with `kedge device token` and set {identity.TOKEN_ENV}",
                ) from None
            _say(str(error))
            draw = random.random()  # noqa: S311
            wait = next_poll(_INTERVAL_SECONDS, failures, "busy", draw, error.retry_after)
        else:
            if not isinstance(answer, Waiting):
                return identity.keep(settings.state_dir, answer)
            failures, wait = 0, answer.ask_again_seconds
            if not told:
                _say(f"waits for approval: `kedge device approve {answer.fingerprint}`")
            told = True
        await asyncio.sleep(wait)


async def _with_another_key(settings: Enrolling, server: ServerClient, known: Identity) -> Identity:
    """Changes the board's key; while the server cannot be asked, the old one goes on counting."""
    try:
        await access.change_key(settings.state_dir, known.device, server)
    except ServiceError as error:
        if meaning(error.status) == "refused":
            access.next_key(settings.state_dir).unlink()
        _say(f"the key stays as it is: {error}")
    return identity.load(settings.state_dir) or known


def _say(what: str) -> None:
    print(f"enrolment: {what}", file=sys.stderr, flush=True)
