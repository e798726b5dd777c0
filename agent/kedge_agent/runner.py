"""The runner: source → engine → sinks, and the engine swapped under it.

``python -m kedge_agent.runner --config FILE``. It holds no server credentials and never speaks
to the network; the updater tells it what to load over a local socket, and it loads nothing that
does not hash to what it was told.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from kedge_agent import limits
from kedge_agent.blobs import BlobStore
from kedge_agent.control import Control
from kedge_agent.frames import LatestFrame
from kedge_agent.hotswap import HotEngine
from kedge_agent.local_protocol import Slots
from kedge_agent.local_server import serve
from kedge_agent.pipeline import Loop
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_agent.sinks.jsonl import make_sink
from kedge_agent.slots import read_slots
from kedge_agent.sources.base import SourceThread
from kedge_agent.sources.files import opener
from kedge_agent.specs import RunnerSettings
from kedge_agent.start import load_at_start
from kedge_agent.telemetry import Telemetry
from kedge_shared import wire
from kedge_shared.errors import KedgeError

_CONFIG_LIMIT_BYTES = 64 * 1024
#: A frame that takes longer hangs: threads cannot be killed, so the process is restarted.
STALL_SECONDS = 20.0
EXIT_STALLED = 70


async def run(settings: RunnerSettings) -> int:
    """Runs until told to stop; returns the exit status."""
    import cv2

    cv2.setNumThreads(1)
    store = BlobStore(settings.blobs)
    slots = read_slots(settings.state_dir)
    begun = load_at_start(settings.state_dir, slots, store, RUNTIMES, settings.threads)
    hot = HotEngine(begun.active, begun.previous)
    frames, telemetry = LatestFrame(), Telemetry()
    loop = Loop(frames, hot, make_sink(settings.sink), telemetry)
    source = SourceThread(opener(settings.source), frames, settings.source.fps)
    control = Control(
        hot=hot, loop=loop, telemetry=telemetry, frames=frames, source=source, store=store,
        runtimes=RUNTIMES, threads=settings.threads, state_dir=settings.state_dir,
        fell_back=begun.fell_back, stills=settings.source.kind == "folder",
    )  # fmt: skip
    server = await serve(settings.socket, control.handle)
    loop.start()
    source.start()
    if begun.active is not None:
        source.opens.set()
    if begun.previous is not None:
        control.shadow_previous()
    status = await _watch(loop, control, slots)
    server.close()
    source.stop()
    loop.stop()
    loop.join(timeout=2)
    return status


async def _watch(loop: Loop, control: Control, slots: Slots) -> int:
    """Waits for the end; notices an engine that hangs."""
    ended = asyncio.Event()
    running = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(each, ended.set)
    while not ended.is_set():
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended.wait(), 1.0)
        busy = loop.busy_since
        if busy is not None and time.monotonic() - busy > STALL_SECONDS:
            print("runner: the engine hangs, restarting", file=sys.stderr, flush=True)
            os._exit(EXIT_STALLED)
        control.note_health()
    return 0


def main() -> None:
    """Starts the runner."""
    parser = argparse.ArgumentParser(prog="kedge_agent.runner")
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    limits.die_with_parent()
    try:
        data = wire.read_limited(options.config, "runner configuration", _CONFIG_LIMIT_BYTES)
        settings = wire.decode(data, RunnerSettings, "runner configuration")
        sys.exit(asyncio.run(run(settings)))
    except KedgeError as error:
        print(f"runner: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
