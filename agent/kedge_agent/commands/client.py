"""The command line's side: asks the running updater, then follows its journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from kedge_agent.commands.protocol import LINE_LIMIT_BYTES, SOCKET, Command, Declined, Reply
from kedge_agent.journal import open_read_only
from kedge_agent.state import Deployment
from kedge_shared.errors import KedgeError, ServiceError
from kedge_shared.phases import TERMINAL, Phase

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Reply)
#: Reading a table and a few signatures from a slow stick.
_ANSWER_SECONDS = 120.0
_LOOK_SECONDS = 0.3
#: An updater that is just starting opens its desk once it knows which runtimes there are.
_STARTING_SECONDS = 10.0


class DeclinedError(KedgeError):
    """The updater did not begin; exit status as it says."""

    def __init__(self, declined: Declined) -> None:
        super().__init__(declined.what, declined.mend)
        self.exit_code = declined.exit_status


def ask(state_dir: Path, command: Command) -> str:
    """Hands a command to the running updater; returns the deployment it began.

    Raises:
        DeclinedError: It was not begun.
        ServiceError: The updater does not answer.
    """
    try:
        reply = asyncio.run(_exchange(state_dir / SOCKET, command))
    except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError, asyncio.TimeoutError):
        raise ServiceError(
            "the agent on this board does not answer",
            "start it, and ask as its user (sudo -u kedge)",
        ) from None
    if isinstance(reply, Declined):
        raise DeclinedError(reply)
    return str(reply.deployment)


async def _exchange(socket: Path, command: Command) -> Any:
    reader, writer = await _connected(socket)
    try:
        writer.write(_encoder.encode(command) + b"\n")
        await writer.drain()
        return _decoder.decode(await asyncio.wait_for(reader.readuntil(b"\n"), _ANSWER_SECONDS))
    finally:
        writer.close()


async def _connected(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a connection, waiting for an updater that is just starting."""
    until = time.monotonic() + _STARTING_SECONDS
    while True:
        try:
            return await asyncio.open_unix_connection(str(socket), limit=LINE_LIMIT_BYTES)
        except (ConnectionRefusedError, FileNotFoundError):
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_LOOK_SECONDS)


def follow(state_dir: Path, deployment: str, told: Callable[[Deployment], None]) -> Deployment:
    """Returns a deployment once it is final or was replaced by another.

    Args:
        state_dir: Of the agent.
        deployment: Identifier.
        told: Called with each phase that is seen.

    Raises:
        StorageError: The journal cannot be read.
    """
    seen: tuple[Phase, str] | None = None
    last: Deployment | None = None
    while True:
        state = open_read_only(state_dir)
        found = state.deployment if state else None
        if found is None or found.id != deployment:
            if last is None:
                raise ServiceError(f"{deployment} is not in the journal")
            return last
        last = found
        if (found.phase, found.verdict.reason) != seen:
            seen = (found.phase, found.verdict.reason)
            told(found)
        if found.phase in TERMINAL:
            return found
        time.sleep(_LOOK_SECONDS)
