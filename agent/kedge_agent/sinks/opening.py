"""From what a configuration says of sinks to the sinks, each behind its queue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kedge_agent.sinks.base import Sink
from kedge_agent.sinks.callback import Callback
from kedge_agent.sinks.http import Http
from kedge_agent.sinks.jsonl import JsonLines
from kedge_agent.sinks.mqtt import Mqtt
from kedge_agent.sinks.queued import Queued
from kedge_agent.sinks.snapshot import Snapshot
from kedge_agent.specs import SinkKind, SinkSpec, called
from kedge_shared.errors import InputError

#: Results that may wait, and whether each holds its frame (about a megabyte).
_QUEUES: dict[SinkKind, tuple[int, bool]] = {
    "jsonl": (256, False), "mqtt": (256, False),
    "http": (4, True), "snapshot": (1, True), "python": (8, True),
}  # fmt: skip


def open_sinks(specs: Sequence[SinkSpec]) -> list[Queued]:
    """Returns the sinks; each is opened in its own thread, so that none keeps the loop waiting."""
    found = []
    for each in specs:
        if each.kind in _QUEUES:
            room, image = _QUEUES[each.kind]
            found.append(Queued(each.kind, partial(_open, each), room, wants_image=image))
    return found


def _open(spec: SinkSpec) -> Sink:
    if spec.kind == "http":
        return Http(spec.address, spec.port)
    if spec.kind == "mqtt" and spec.broker is not None:
        return Mqtt(spec.broker)
    if spec.kind == "python" and spec.call is not None:
        return Callback(called(spec.call))
    if spec.path is None:
        raise InputError(f"sink {spec.kind!r} has no path", "set sink.path")
    if spec.kind == "snapshot":
        return Snapshot(spec.path, spec.every_seconds)
    return JsonLines(spec.path, spec.max_mb)
