"""Many requests, one transaction: what comes while one batch is written is the next one.

A commit waits for the disk; a hundred reports in one cost hardly more than one. Nobody waits for a
batch to fill: a lone request is written at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from kedge_server.devices.pace import busy_seconds
from kedge_server.errors import AwayError

Asked = TypeVar("Asked")
Given = TypeVar("Given")

_SMOOTHING = 0.2


class Batches(Generic[Asked, Given]):
    """Does one kind of work in batches, one at a time, in a thread of its own.

    Args:
        name: What it is, for its thread.
        work: Returns, for each that was asked, what is given for it, or the error that only it
            gets. What it raises, all of the batch get.
        most: Largest batch.
        waiting: Longest queue; beyond it requests are sent away with Retry-After.
    """

    def __init__(
        self, name: str, work: Callable[[Sequence[Asked]], Sequence[Given | Exception]],
        most: int, waiting: int,
    ) -> None:  # fmt: skip
        self._work, self._most, self._longest = work, most, waiting
        self._queue: deque[tuple[Asked, asyncio.Future[Given]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._running: asyncio.Task[None] | None = None
        #: Done a second, smoothed.
        self._rate = float(most)

    async def do(self, asked: Asked) -> Given:
        """Does it with the next batch.

        Raises:
            AwayError: Too many wait.
        """
        if len(self._queue) >= self._longest:
            draw = random.random()  # noqa: S311 - spreads load, guards nothing
            seconds = busy_seconds(len(self._queue), self._rate, draw)
            raise AwayError("the server is busy", retry_after=seconds)
        future: asyncio.Future[Given] = asyncio.get_running_loop().create_future()
        self._queue.append((asked, future))
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
            started = time.perf_counter()
            given: Sequence[Given | Exception]
            try:
                given = await loop.run_in_executor(
                    self._thread, self._work, [asked for asked, _ in batch]
                )
            # Boundary: every request of the batch is told what went wrong, and the next batch runs.
            except Exception as error:  # noqa: BLE001
                given = [error] * len(batch)
            took = time.perf_counter() - started
            self._rate += _SMOOTHING * (len(batch) / max(took, 1e-6) - self._rate)
            for (_, future), each in zip(batch, given, strict=True):
                # Who went away in the meantime is not told.
                if future.done():
                    continue
                if isinstance(each, Exception):
                    future.set_exception(each)
                else:
                    future.set_result(each)

    def close(self) -> None:
        """Ends the thread once its batch is written."""
        self._thread.shutdown(wait=True)
