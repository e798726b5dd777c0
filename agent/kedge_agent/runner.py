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
from contextlib import suppress
from pathlib import Path

from kedge_agent import limits
from kedge_agent.blobs import BlobStore
from kedge_agent.children import leave
from kedge_agent.control import Control
from kedge_agent.frames import LatestFrames
from kedge_agent.hotswap import HotEngine
from kedge_agent.local_protocol import Slots
from kedge_agent.local_server import serve
from kedge_agent.pipeline import Loop
from kedge_agent.pulse import lost
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_agent.sinks.opening import open_sinks
from kedge_agent.slots import read_slots
from kedge_agent.sources.feed import Feed, Feeds
from kedge_agent.sources.opening import opener
from kedge_agent.specs import RunnerSettings, SourceSpec
from kedge_agent.start import load_at_start
from kedge_agent.telemetry import Telemetry
from kedge_shared import wire
from kedge_shared.errors import KedgeError

_CONFIG_LIMIT_BYTES = 64 * 1024
#: Threads cannot be killed, so the process is restarted.
EXIT_STALLED = 70


async def run(settings: RunnerSettings) -> int:
    """Runs until told to stop; returns the exit status."""
    import cv2

    cv2.setNumThreads(1)
    store = BlobStore(settings.blobs, settings.sealer)
    slots = read_slots(settings.state_dir)
    begun = load_at_start(
        settings.state_dir, slots, store, RUNTIMES, settings.threads, settings.isolation
    )
    hot = HotEngine(begun.active, begun.previous)
    frames, telemetry = LatestFrames([each.name for each in settings.sources]), Telemetry()
    loop = Loop(frames, hot, open_sinks(settings.sinks), telemetry)
    sources = Feeds(
        [Feed(each.name, opener(each), frames, _stuck(each)) for each in settings.sources]
    )
    control = Control(
        hot=hot, loop=loop, telemetry=telemetry, frames=frames, sources=sources, store=store,
        runtimes=RUNTIMES, threads=settings.threads, state_dir=settings.state_dir,
        isolation=settings.isolation, fell_back=begun.fell_back,
        stills=all(each.kind == "folder" for each in settings.sources),
    )  # fmt: skip
    server = await serve(settings.socket, control.handle)
    loop.start()
    sources.start()
    if begun.active is not None:
        sources.opens.set()
    if begun.previous is not None:
        control.shadow_previous()
    elif slots.probation:
        control.watch_alone()
    status = await _watch(loop, control, slots)
    server.close()
    sources.stop()
    loop.stop()
    loop.join(timeout=2)
    for each in loop.sinks:
        each.close()
    return status


def _stuck(spec: SourceSpec) -> float:
    """Returns after what time a source hangs: its own timeout comes first, where it has one."""
    slow = 0.0 if spec.fps is None else 2 / spec.fps
    return spec.timeout_seconds * 1.5 + slow


async def _watch(loop: Loop, control: Control, slots: Slots) -> int:
    """Waits for the end; notices an engine that hangs."""
    ended = asyncio.Event()
    running = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(each, ended.set)
    while not ended.is_set():
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended.wait(), 1.0)
        if why := lost(loop.pulse()):
            print(f"runner: {why}, restarting", file=sys.stderr, flush=True)
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
        leave(asyncio.run(run(settings)))
    except KedgeError as error:
        print(f"runner: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
