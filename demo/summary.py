"""Figures of a finished demo, read from what the boards' sinks and the server recorded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_shared import api

#: Sink frames this near a change of engine belong to the swap, seconds.
_AROUND_SWAP = 2.0


@dataclass(frozen=True)
class SinkFrame:
    """One line of a board's sink.

    Attributes:
        seq: Given by the camera, without gaps.
        t: Unix seconds at which it reached the sink.
        release: Engine that answered it.
        ms: Frame time, milliseconds.
    """

    seq: int
    t: float
    release: str
    ms: float


@dataclass(frozen=True)
class Span:
    """From the assignment of an update to its end (probation over, refused or rolled back).

    Attributes:
        start: Unix seconds.
        end: Unix seconds.
    """

    start: float
    end: float


@dataclass(frozen=True)
class LoopFigures:
    """What one board's loop did.

    Attributes:
        frames: Frames at the sink.
        lost: Sequence numbers missing at the sink during updates.
        lost_elsewhere: Sequence numbers missing outside of updates.
        longest_gap_ms: Longest time between two sink frames around a swap.
        steady_ms: Frame times outside of updates.
    """

    frames: int
    lost: int
    lost_elsewhere: int
    longest_gap_ms: float
    steady_ms: list[float]


def read_sink(folder: Path, name: str = "frames.jsonl") -> list[SinkFrame]:
    """Reads a board's sink, rotated part first."""
    frames: list[SinkFrame] = []
    for path in (folder / f"{name}.1", folder / name):
        if path.is_file():
            frames += [_frame(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return frames


def _frame(line: str) -> SinkFrame:
    body = json.loads(line)
    return SinkFrame(int(body["seq"]), float(body["t"]), body["release"], float(body["ms"]))


def measure(frames: Sequence[SinkFrame], spans: Sequence[Span]) -> LoopFigures:
    """Counts what a board's loop lost and how long its swaps took.

    A restart of the runner begins its numbers anew; the demo restarts none, so that a number that
    does not follow its predecessor by one is a loss, whatever the reason.

    Args:
        frames: In the order of the sink.
        spans: Updates of the board.
    """

    def updating(start: float, end: float) -> bool:
        return any(span.start <= end and start <= span.end for span in spans)

    lost = elsewhere = 0
    gap = 0.0
    for before, after in itertools.pairwise(frames):
        missing = max(0, after.seq - before.seq - 1)
        if updating(before.t, after.t):
            lost += missing
        else:
            elsewhere += missing
    swaps = [b.t for a, b in itertools.pairwise(frames) if a.release != b.release]
    for before, after in itertools.pairwise(frames):
        if any(abs(after.t - swap) <= _AROUND_SWAP for swap in swaps):
            gap = max(gap, (after.t - before.t) * 1000)
    steady = [frame.ms for frame in frames if not updating(frame.t, frame.t)]
    return LoopFigures(len(frames), lost, elsewhere, gap, steady)


def spans_of(deployments: Sequence[api.DeploymentInfo]) -> list[Span]:
    """Returns when a board was being updated."""
    return [Span(each.assigned, max(each.updated, each.assigned)) for each in deployments]


def release_row(
    rollout: api.RolloutInfo, deployments: Sequence[api.DeploymentInfo]
) -> dict[str, object]:
    """Returns one entry of ``releases``."""
    stopped = [each for each in deployments if each.verdict.stopped_in is not None]
    completed = rollout.state == "completed"
    names = {"latency": "latency", "accuracy": "accuracy", "fidelity": "accuracy"}
    first = min(stopped, key=lambda each: each.updated) if stopped and not completed else None
    return {
        "version": rollout.release,
        "verdict": "completed" if completed else "halted",
        "stopped_by": names.get(first.verdict.code, first.verdict.code) if first else None,
        "stopped_in": first.verdict.stopped_in.value
        if first and first.verdict.stopped_in
        else None,
        "stage": next((s.percent for s in rollout.stages if s.state == "failed"), None),
        "reason": first.verdict.reason if first else rollout.reason,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Returns a percentile, or 0 of nothing."""
    return float(np.quantile(values, share)) if values else 0.0
