"""Which of several builds is quickest on this very board, with an interval.

All are loaded at once and timed in turn on the same frames, so that a board that grows warm or a
neighbour that takes a core is in all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kedge_agent.blobs import VerifiedBlob, seal
from kedge_agent.errors import EngineError
from kedge_agent.runtimes.base import Engine
from kedge_agent.runtimes.registry import RUNTIMES
from kedge_shared import wire
from kedge_shared.errors import InputError
from kedge_shared.manifest import MANIFEST_LIMIT_BYTES, FileRole, Manifest, read_manifest
from kedge_shared.timing import Latency, Timed, interleaved, speed
from kedge_shared.versions import in_range
from kedge_shared.vision import Frame


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One build's figures.

    Attributes:
        build: Its folder.
        runtime: With its version on this board.
        p50_ms: Median frame time, pre- and post-processing included.
        p95_ms: 95th percentile.
        slower: Times the frame time of the quickest, with its 95 % interval; 1 is the quickest.
        low: Lower end.
        high: Upper end.
    """

    build: str
    runtime: str
    p50_ms: float
    p95_ms: float
    slower: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What came of it.

    Attributes:
        standings: Quickest first.
        skipped: Build → why it was not measured.
        verdict: The sentence.
    """

    standings: tuple[Standing, ...]
    skipped: dict[str, str]
    verdict: str


def measure(
    folders: Sequence[Path], frames: Sequence[Frame], *, threads: int, seconds: float
) -> Ranking:
    """Measures the builds that this board can load.

    Args:
        folders: As ``kedge build`` wrote them, each with its ``manifest.json``.
        frames: (h, w, 3) BGR uint8 each.
        threads: Each engine may use.
        seconds: For all of them together.

    Raises:
        InputError: A folder holds no build, or a file is not what its manifest names; or none of
            them can be loaded here.
    """
    timed: list[Timed] = []
    names: list[tuple[str, str]] = []
    skipped: dict[str, str] = {}
    with ExitStack() as closing:
        for folder in folders:
            manifest, blobs = _opened(folder, closing)
            try:
                engine = _load(manifest, blobs, threads)
            except EngineError as error:
                skipped[str(folder)] = str(error)
                continue
            closing.callback(engine.close)
            timed.append(Timed(engine, manifest.input, manifest.output))
            names.append((str(folder), _runtime(manifest)))
        if not timed:
            reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
            raise InputError(f"none of the builds runs on this board: {reasons}")
        found = interleaved(timed, frames, clock=time.perf_counter, seconds=seconds)
    standings = rank(names, found)
    return Ranking(standings=standings, skipped=skipped, verdict=verdict(standings))


def rank(names: Sequence[tuple[str, str]], found: Sequence[Latency]) -> tuple[Standing, ...]:
    """Orders builds by their median frame time and sets each against the quickest."""
    pairs = sorted(zip(names, found, strict=True), key=lambda each: each[1].p50)
    best = pairs[0][1]
    rows = []
    for at, ((build, runtime), each) in enumerate(pairs):
        against = speed(each, best)
        ratio, low, high = (
            (1.0, 1.0, 1.0) if at == 0 else (against.ratio, against.low, against.high)
        )
        rows.append(Standing(build=build, runtime=runtime, p50_ms=each.p50, p95_ms=each.p95,
                             slower=ratio, low=low, high=high))  # fmt: skip
    return tuple(rows)


def verdict(standings: Sequence[Standing]) -> str:
    """Returns the sentence: which is best, or which cannot be told apart."""
    first, *rest = standings
    tied = [each.build for each in rest if each.low <= 1]
    if not rest:
        return f"{first.build} is the only build that runs here"
    if tied:
        return f"undecided: {', '.join([first.build, *tied])} cannot be told apart; measure longer"
    return f"{first.build} ({first.runtime}) is the quickest"


def noise(size: tuple[int, int], count: int = 8) -> list[Frame]:
    """Returns drawn frames, (h, w, 3), for a board without images of its own."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def _opened(folder: Path, closing: ExitStack) -> tuple[Manifest, dict[FileRole, VerifiedBlob]]:
    data = wire.read_limited(folder / "manifest.json", "manifest", MANIFEST_LIMIT_BYTES)
    manifest = read_manifest(data)
    blobs: dict[FileRole, VerifiedBlob] = {}
    for each in manifest.engine_files:
        blob = closing.enter_context(seal(folder / each.name))
        if blob.sha256 != each.sha256:
            raise InputError(f"{folder / each.name} is not what its manifest names",
                             "name the folder as `kedge build` wrote it")  # fmt: skip
        blobs[each.role] = blob
    return manifest, blobs


def _load(manifest: Manifest, blobs: dict[FileRole, VerifiedBlob], threads: int) -> Engine:
    wanted = manifest.runtime
    runtime = RUNTIMES.get(wanted.name)
    facts = runtime.probe() if runtime else None
    if runtime is None or facts is None:
        raise EngineError(f"runtime {wanted.name} is not on this board")
    if not in_range(facts.version, wanted.range):
        raise EngineError(f"{wanted.name} {facts.version} is outside {wanted.range}")
    return runtime.load(blobs, manifest, threads=threads)


def _runtime(manifest: Manifest) -> str:
    facts = RUNTIMES[manifest.runtime.name].probe()
    return f"{manifest.runtime.name} {facts.version if facts else ''}".strip()
