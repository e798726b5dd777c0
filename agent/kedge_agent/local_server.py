"""The runner's side of the local socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from kedge_agent.local_protocol import LINE_LIMIT_BYTES, Answer, Failed, Request

#: Carries out one request; runs in a thread, may take as long as a load does.
Handler = Callable[[Any], Answer]

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Request)


async def serve(socket: Path, handle: Handler) -> asyncio.Server:
    """Listens on a Unix socket that only this user may open.

    Args:
        socket: Path; a stale one is replaced.
        handle: Carries out requests.
    """
    with suppress(FileNotFoundError):
        socket.unlink()
    mask = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(
            lambda reader, writer: _converse(reader, writer, handle),
            path=str(socket),
            limit=LINE_LIMIT_BYTES,
        )
    finally:
        os.umask(mask)


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handle: Handler
) -> None:
    # Boundary: the other end may go at any moment; that ends this conversation and nothing else.
    try:
        with suppress(OSError, ValueError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                answer: Answer
                try:
                    request = _decoder.decode(line)
                except msgspec.MsgspecError as error:
                    answer = Failed("version", f"request is not understood: {error}")
                else:
                    answer = await asyncio.to_thread(handle, request)
                writer.write(_encoder.encode(answer) + b"\n")
                await writer.drain()
    finally:
        writer.close()
