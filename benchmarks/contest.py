"""Engines of one model in one runtime: judged on the same images, timed in one interleaved run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.common import Row
from benchmarks.peers import PEERS, Material
from kedge_builder.cache import Cache
from kedge_builder.choosing import Chooser
from kedge_builder.data.curation import CurationOptions
from kedge_builder.data.curation_step import curated, steps
from kedge_builder.data.datasets import Data, Sample, frames, read_data
from kedge_builder.data.features import Backbone
from kedge_builder.measure import engines
from kedge_builder.measure.engines import Engine, EngineFile
from kedge_builder.measure.evaluate import Accuracy, Drop, drop_interval
from kedge_builder.measure.latency import Latency, Timed, interleaved
from kedge_builder.models.weights import load
from kedge_builder.progress import Progress
from kedge_builder.quantize.quantizer import engine_files
from kedge_builder.quantize.source import Source, digest_of
from kedge_builder.recipe import BuildOptions
from kedge_builder.workshop import Workshop
from kedge_shared.detections import Array
from kedge_shared.device_classes import DeviceClass
from kedge_shared.timing import speed

#: Engine alone over float's; stated for one thread at 640 px of a processor without VNNI.
SPEED = {"onnxruntime": 1.5, "openvino": 1.7}
#: Points of mAP50-95 that INT8 may lose.
DROP = {"onnxruntime": 0.5, "openvino": 0.3}
#: Share of float's bytes that INT8 saves, per cent.
SAVED = 70.0
#: A peer that loses more points than this is broken, and its speed no measure for anybody.
_USABLE_DROP = 5.0
_FRAMES = 16
OURS = "kedge"


@dataclass(frozen=True)
class Entrant:
    """One engine and what was measured of it.

    Attributes:
        name: In the table.
        files: The engine.
        accuracy: On the gate images.
        whole: Latency of frames, pre- and post-processing included.
        alone: Of the same frames, the engine's part.
    """

    name: str
    files: tuple[EngineFile, ...]
    accuracy: Accuracy
    whole: Latency
    alone: Latency

    @property
    def mib(self) -> float:
        """Size of the files."""
        return sum(each.path.stat().st_size for each in self.files) / 2**20


class Stopwatch:
    """An engine that keeps how long each call took.

    Attributes:
        took: Milliseconds, in the order of the calls.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.took: list[float] = []

    def infer(self, batch: Array) -> Array:
        """Runs one batch."""
        started = time.perf_counter()
        raw = self._engine.infer(batch)
        self.took.append((time.perf_counter() - started) * 1000)
        return raw

    def alone(self, whole: Latency) -> Latency:
        """Returns the same rounds as ``whole``, engine only; what came before was warm-up."""
        return replace(whole, p50=whole.engine_p50, frames_ms=tuple(self.took[-whole.rounds :]))


def open_shop(options: BuildOptions, progress: Progress, cache: Cache) -> Workshop:
    """Reads weights and data and curates, as ``kedge build`` does."""
    trained = load(options.weights)
    data = read_data(options.data, seed=options.seed, gate_limit=options.images)
    wanted = CurationOptions(seed=options.seed, count=options.calibration_images)
    with progress.stage("curating calibration images", steps(data, wanted)) as tick:
        data = curated(data, Backbone(trained.model), wanted, tick)
    return Workshop(options, trained, data, cache, progress)


def entrants(shop: Workshop, device_class: DeviceClass) -> list[Entrant]:
    """Makes and measures float, Kedge's choice and every peer of the class's runtime."""
    source = shop.source(shop.options.size(device_class))
    made: dict[str, tuple[EngineFile, ...]] = {"float": (EngineFile("engine", source.path),)}
    made[OURS] = (
        Chooser(shop, device_class, source, shop.trained, shop.options.rungs)
        .choose()
        .candidate.files
    )
    for name in PEERS[device_class.runtime.name]:
        made[name] = _peer(shop, device_class, source, name)
    return measured(shop, device_class, {name: (files, source) for name, files in made.items()})


def measured(
    shop: Workshop,
    device_class: DeviceClass,
    made: dict[str, tuple[tuple[EngineFile, ...], Source]],
) -> list[Entrant]:
    """Measures engines, each beside the float model it is read like."""
    accuracies = {
        name: shop.surveyor(device_class, source).survey(name, files, "gate").accuracy
        for name, (files, source) in made.items()
    }
    runtime, threads = device_class.runtime.name, device_class.threads
    watches = {name: Stopwatch(engines.load(runtime, f, threads)) for name, (f, _) in made.items()}
    timed = [Timed(watches[name], of.given, of.read) for name, (_, of) in made.items()]
    seconds = shop.options.latency_seconds * len(timed)
    with shop.progress.stage(f"{device_class.name}: timing {len(timed)} engines in turn"):
        found = interleaved(timed, frames(shop.data.gate[:_FRAMES]), seconds=seconds)
    return [
        Entrant(name, made[name][0], accuracies[name], whole, watches[name].alone(whole))
        for name, whole in zip(made, found, strict=True)
    ]


def _peer(
    shop: Workshop, device_class: DeviceClass, source: Source, name: str
) -> tuple[EngineFile, ...]:
    runtime = device_class.runtime.name
    pool = _pool(shop.data)
    given = Material(shop.options.weights, source, pool, len(shop.data.calibrate),
                     shop.data.classes, device_class.reduce_range)  # fmt: skip

    def write(out: Path) -> None:
        with shop.progress.stage(f"{device_class.name}: {name}"):
            PEERS[runtime][name](given, out)

    inputs = {"peer": name, "runtime": runtime, "float": source.sha256, "pool": digest_of(pool),
              "count": given.count, "reduce_range": given.reduce_range}  # fmt: skip
    return engine_files(shop.cache.files("peer", inputs, write)[0])


def _pool(data: Data) -> tuple[Sample, ...]:
    """Returns the calibration pool, never smaller than what curation took of it."""
    return data.pool if len(data.pool) >= len(data.calibrate) else data.calibrate


def rows_of(title: str, runtime: str, all_of: Sequence[Entrant], seed: int) -> list[Row]:
    """Returns the rows of one model in one runtime."""
    reference, ours = all_of[0], all_of[1]
    lost = {each.name: drop_interval(reference.accuracy, each.accuracy, seed=seed)
            for each in all_of[1:]}  # fmt: skip
    rows = [row for each in all_of for row in _figures(title, each, reference, lost)]
    rows += claims(title, reference, ours, lost[OURS], SPEED[runtime], DROP[runtime])
    saved = 100 * (1 - ours.mib / reference.mib)
    rows.append(Row(name=f"{title}: bytes saved", value=saved, unit="%", target=SAVED,
                    holds=saved >= SAVED))  # fmt: skip
    peers = [e for e in all_of[2:] if lost[e.name].estimate * 100 < _USABLE_DROP]
    return rows + (_against_peers(title, ours, peers, seed) if peers else [])


def _figures(
    title: str, each: Entrant, reference: Entrant, lost: dict[str, Drop]
) -> list[Row]:  # fmt: skip
    name = f"{title} {each.name}"
    rows = [
        Row(name=f"{name}: mAP50-95", value=each.accuracy.map50_95, unit="",
            against=reference.accuracy.map50_95),
        Row(name=f"{name}: engine p50", value=each.alone.p50, unit="ms",
            against=reference.alone.p50),
        Row(name=f"{name}: frame p50", value=each.whole.p50, unit="ms",
            against=reference.whole.p50),
        Row(name=f"{name}: size", value=each.mib, unit="MiB", against=reference.mib),
    ]  # fmt: skip
    if each is reference:
        return rows
    drop, fast = lost[each.name], speed(reference.alone, each.alone)
    return [
        *rows,
        Row(name=f"{name}: drop", value=drop.estimate * 100, unit="points", interval=_points(drop)),
        Row(name=f"{name}: speed", value=fast.ratio, unit="x", interval=(fast.low, fast.high)),
    ]


def claims(
    title: str, reference: Entrant, ours: Entrant, drop: Drop, fast: float, loss: float
) -> list[Row]:
    """Returns the rows of what is promised against float: speed of the engine, points lost.

    The estimate and the interval stand in rows of their own: a small sample can meet the one and
    leave the other open, and then it is said to be undecided.
    """
    found = speed(reference.alone, ours.alone)
    low, high = _points(drop)
    return [
        Row(name=f"{title}: engine over float (target: no VNNI)", value=found.ratio, unit="x",
            target=fast, holds=found.ratio >= fast, interval=(found.low, found.high)),
        Row(name=f"{title}: points lost", value=drop.estimate * 100, unit="points", target=loss,
            holds=drop.estimate * 100 <= loss),
        Row(name=f"{title}: points lost, interval's end", value=high, unit="points", target=loss,
            holds=within(low, high, loss), interval=(low, high)),
    ]  # fmt: skip


def within(low: float, high: float, limit: float) -> bool | None:
    """Says whether an interval lies under a limit; ``None`` if it holds the limit."""
    if high <= limit:
        return True
    return False if low > limit else None


def _against_peers(title: str, ours: Entrant, peers: list[Entrant], seed: int) -> list[Row]:
    """Returns what is lost to the best of the peers; it counts where it is beyond noise."""
    exact = max(peers, key=lambda each: each.accuracy.map50_95)
    quick = min(peers, key=lambda each: each.alone.p50)
    lost = drop_interval(exact.accuracy, ours.accuracy, seed=seed)
    fast = speed(quick.alone, ours.alone)
    return [
        Row(name=f"{title}: points behind {exact.name}", value=lost.estimate * 100, unit="points",
            target=0, holds=lost.low <= 0, interval=_points(lost)),
        Row(name=f"{title}: speed over {quick.name}", value=fast.ratio, unit="x", target=1,
            holds=fast.high >= 1, interval=(fast.low, fast.high)),
    ]  # fmt: skip


def _points(drop: Drop) -> tuple[float, float]:
    return drop.low * 100, drop.high * 100
