"""One build from end to end. Wires; decides nothing."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from kedge_builder.cache import Cache, default_folder
from kedge_builder.class_build import BuildResult, ClassBuild
from kedge_builder.compilers.step import compiler_of
from kedge_builder.compilers.support import check_class
from kedge_builder.data.curation import CurationOptions
from kedge_builder.data.curation_step import curated, steps
from kedge_builder.data.datasets import Data, read_data
from kedge_builder.data.features import Backbone
from kedge_builder.judge import golden_set, predecessor
from kedge_builder.judge.golden_set import GoldenSet
from kedge_builder.measure import engines
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.remote import Bench
from kedge_builder.models.weights import Trained
from kedge_builder.models.weights import load as load_weights
from kedge_builder.progress import Progress
from kedge_builder.recipe import BuildOptions
from kedge_builder.report import output
from kedge_builder.workshop import Workshop
from kedge_shared.client import Client
from kedge_shared.errors import InputError
from kedge_shared.signing import load_private_key

__all__ = ["BuildResult", "run"]


def run(options: BuildOptions, progress: Progress) -> list[BuildResult]:
    """Builds for every class of ``options``.

    Raises:
        InputError: Options, weights, data or policy cannot be used; nothing is written.
        StorageError: The disk is full or cannot be written.
        ServiceError: No board measured, where boards were asked to.
    """
    options.check()
    for each in options.classes:
        check_class(each)
        compiler_of(each)
    cache = Cache(options.cache or default_folder())
    with (
        output.scratch(options.out) as scratch,
        tempfile.TemporaryDirectory(prefix="kedge-build-") as work,
        ExitStack() as closing,
    ):
        bench = _bench(options, closing)
        with progress.stage("reading weights and data"):
            if options.previous:  # said before hours of work, not after
                for each in options.classes:
                    predecessor.find(options.previous, each.name)
            trained = load_weights(options.weights)
            data = read_data(options.data, seed=options.seed, gate_limit=options.images)
            _check_classes(trained, data)
        data = _curated(trained, data, options, progress)
        shop = Workshop(options, trained, data, cache, progress)
        golden = _golden(shop, Path(work))
        results = [
            ClassBuild(shop, each, golden, bench).run(Path(work), scratch)
            for each in options.classes
        ]
        if golden.proposed:
            golden_set.write_policy(golden, scratch / "policy")
        output.publish(scratch, options.out)
    cache.trim()
    return results


def _bench(options: BuildOptions, closing: ExitStack) -> Bench | None:
    if options.bench_server is None or options.bench_key is None:
        return None
    client = closing.enter_context(Client.open(options.bench_server, options.token_file))
    return Bench(client, load_private_key(options.bench_key), options.bench_wait_seconds)


def _curated(trained: Trained, data: Data, options: BuildOptions, progress: Progress) -> Data:
    wanted = CurationOptions(seed=options.seed, count=options.calibration_images)
    with progress.stage("curating calibration images", steps(data, wanted)) as tick:
        return curated(data, Backbone(trained.model), wanted, tick)


def _check_classes(trained: Trained, data: Data) -> None:
    if len(trained.classes) != len(data.classes):
        raise InputError(
            f"the model has {len(trained.classes)} classes, the data {len(data.classes)}",
            "give the data that it was trained for",
        )


def _golden(shop: Workshop, work: Path) -> GoldenSet:
    """Reads the policy, or proposes one with a floor under the float model's label score."""
    options = shop.options
    if options.policy:
        return golden_set.load_policy(options.policy, options.model)
    golden = golden_set.propose(shop.data, options.model, work / "golden")
    first = options.classes[0]
    source = shop.source(options.size(first), opset=first.opset)
    files = [EngineFile("engine", source.path)]
    engine = engines.load(first.runtime.name, files, first.threads)
    found = golden_set.record(engine, golden, source.given, source.read)
    floor = golden_set.floor_under(golden_set.score(found, golden, shop.trained.classes))
    return replace(golden, policy=replace(golden.policy, accuracy_floor=floor))
