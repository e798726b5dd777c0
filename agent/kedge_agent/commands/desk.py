"""The updater's side: takes commands in, one at a time, and answers when they have begun."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from kedge_agent.commands.protocol import LINE_LIMIT_BYTES, Command, Declined, Reply
from kedge_shared.errors import StorageError

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Command)
Pending = tuple[Any, "asyncio.Future[Reply]"]


class Desk:
    """Holds the command that waits.

    Args:
        declines: Says at once why a command cannot be taken now, or ``None``.

    Attributes:
        rung: Set while a command waits.
    """

    def __init__(self, declines: Callable[[Any], Declined | None]) -> None:
        self._declines = declines
        self._pending: Pending | None = None
        self.rung = asyncio.Event()

    async def serve(self, socket: Path) -> asyncio.Server:
        """Listens on a socket that only this user may open.

        Raises:
            StorageError: It cannot be made.
        """
        mask = os.umask(0o177)
        try:
            socket.unlink(missing_ok=True)
            return await asyncio.start_unix_server(
                self._converse, path=str(socket), limit=LINE_LIMIT_BYTES
            )
        except OSError as error:
            raise StorageError(f"{socket} cannot be made: {error.strerror}") from None
        finally:
            os.umask(mask)

    def take(self) -> Pending | None:
        """Returns the command that waits, with where its answer goes; it waits no more."""
        pending, self._pending = self._pending, None
        self.rung.clear()
        return pending

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Boundary: the other end may go at any moment; that ends this conversation and no more.
        try:
            with suppress(OSError, ValueError, asyncio.IncompleteReadError):
                reply = await self._answer(await reader.readuntil(b"\n"))
                writer.write(_encoder.encode(reply) + b"\n")
                await writer.drain()
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Reply:
        try:
            command = _decoder.decode(line)
        except msgspec.MsgspecError as error:
            return Declined(2, f"command is not understood: {error}", "update the agent")
        declined = self._declines(command)
        if declined is not None:
            return declined
        if self._pending is not None:
            return Declined(6, "another command waits", "try again in a moment")
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending = (command, future)
        self.rung.set()
        return await future
