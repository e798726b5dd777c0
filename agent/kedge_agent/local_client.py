"""The updater's side of the local socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import msgspec

from kedge_agent.errors import RunnerGone
from kedge_agent.local_protocol import (
    LINE_LIMIT_BYTES,
    VERSION,
    Answer,
    Failed,
    Hello,
    Request,
    RunnerState,
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Answer)


class RunnerLink:
    """Asks the runner, one connection a question: a restarted runner is simply the next answer.

    Args:
        socket: Path of the Unix socket.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def ask(self, request: Request, timeout_seconds: float = 10.0) -> Answer:
        """Sends a request and returns the answer.

        Raises:
            RunnerGone: It does not listen, ended meanwhile, is too slow or of another version.
        """
        try:
            # Not asyncio.wait_for: see server_client.within.
            with anyio.fail_after(timeout_seconds):
                answer = await self._exchange(request)
            return answer
        except TimeoutError:
            raise RunnerGone(f"runner does not answer within {timeout_seconds:.0f} s") from None
        except (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError, ValueError) as error:
            raise RunnerGone(f"runner does not answer ({type(error).__name__})") from None

    async def state(self, timeout_seconds: float = 5.0) -> RunnerState:
        """Returns where the runner stands.

        Raises:
            RunnerGone: As :meth:`ask`.
        """
        from kedge_agent.local_protocol import Status

        answer = await self.ask(Status(), timeout_seconds)
        if not isinstance(answer, RunnerState):
            raise RunnerGone("runner answers something else than its state")
        return answer

    async def _exchange(self, request: Request) -> Answer:
        reader, writer = await asyncio.open_unix_connection(
            str(self._socket), limit=LINE_LIMIT_BYTES
        )
        try:
            hello = await _say(reader, writer, Hello())
            if isinstance(hello, Failed):
                return hello
            if isinstance(hello, RunnerState) and hello.version != VERSION:
                raise ValueError("another version")
            return await _say(reader, writer, request)
        finally:
            writer.close()


async def _say(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request
) -> Answer:
    writer.write(_encoder.encode(request) + b"\n")
    await writer.drain()
    answer: Answer = _decoder.decode(await reader.readuntil(b"\n"))
    return answer
