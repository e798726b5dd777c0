"""Waiting for what other threads and processes do, however slow the machine is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

#: Seconds for what takes a moment: a machine may stall for many, and then nothing has failed yet.
PATIENCE = 90.0


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns as soon as it is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.002)


async def wait_until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Returns as soon as it is so; the event loop goes on meanwhile."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        await asyncio.sleep(0.01)
