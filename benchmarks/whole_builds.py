"""What a whole ``kedge build`` costs, and what an earlier one with ``--tune`` brought."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import Row
from benchmarks.contest import claims, measured
from kedge_builder.compress.finetune import FinetuneOptions, finetune
from kedge_builder.judge.acceptance import EXIT
from kedge_builder.measure.engines import EngineFile
from kedge_builder.measure.evaluate import drop_interval
from kedge_builder.models.weights import Trained, load
from kedge_builder.quantize.quantizer import engine_files
from kedge_builder.quantize.source import digest_of
from kedge_builder.recipe import BuildOptions
from kedge_builder.workshop import Workshop
from kedge_shared.errors import InputError

#: Both classes without tuning, two cores, 128 images.
BUILD_SECONDS, BUILD_MIB = 240.0, 4096.0
#: With pruning and search, against the unpruned model that was trained equally long.
TUNED_SPEED, TUNED_DROP = 3.0, 1.0
TUNED_TITLE = "tuned"
_RUN = "from kedge_shared.cli import main; main()"


def build_rows(title: str, options: BuildOptions, scratch: Path) -> list[Row]:
    """Builds in a process of its own with an empty cache; returns time and peak memory.

    Raises:
        InputError: The build refused its input.
    """
    command = [
        sys.executable, "-c", _RUN, "build", str(options.weights), "--data", str(options.data),
        "--out", str(scratch / "built"), "--cache", str(scratch / "empty"),
        "--input-size", str(options.input_size),
        "--calibration-images", str(options.calibration_images),
    ]  # fmt: skip
    for each in options.classes:
        command += ["--device-class", each.name]
    started = time.monotonic()
    running = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(running.pid, 0)
    took = time.monotonic() - started
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode not in EXIT.values():
        raise InputError(f"kedge build of {options.weights} ended with {running.returncode}")
    peak = usage.ru_maxrss / 1024
    return [
        Row(name=f"{title}: kedge build, {len(options.classes)} classes", value=took, unit="s",
            target=BUILD_SECONDS, holds=took <= BUILD_SECONDS),
        Row(name=f"{title}: its peak memory", value=peak, unit="MiB", target=BUILD_MIB,
            holds=peak < BUILD_MIB),
    ]  # fmt: skip


def tuned_rows(title: str, shop: Workshop, folder: Path) -> list[Row]:
    """Measures the engine of an earlier build afresh, beside the unpruned model in float.

    Training alone may gain what pruning with training gains, so the unpruned model is trained for
    as many epochs as the pruned one was, with the same rate and batch.

    Args:
        title: Of the rows.
        shop: With the data that both are judged on; its input size is the unpruned model's.
        folder: One class of ``kedge build --tune``: its engine and ``report.json``.

    Raises:
        InputError: The folder holds no build.
    """
    try:
        report = json.loads((folder / "report.json").read_bytes())
        runtime = str(report["runtime"]["name"])
        size = int(report["input"]["height"])
        epochs = epochs_of(report)
    except (OSError, ValueError, KeyError):
        raise InputError(f"{folder} holds no report of a build", "name DIR/CLASS") from None
    # By the runtime: the build may have been for a class of one's own.
    device_class = next((c for c in shop.options.classes if c.runtime.name == runtime), None)
    if device_class is None:
        raise InputError(f"{folder} is a build for {runtime}", f"measure --runtime {runtime}")
    trained = _equal(shop, shop.options.size(device_class), epochs, report["provenance"])
    reference = shop.source(shop.options.size(device_class), trained)
    files = engine_files(folder)
    tuned = replace(reference, given=replace(reference.given, height=size, width=size))
    floats, small = measured(
        shop,
        device_class,
        {"unpruned float": ((EngineFile("engine", reference.path),), reference),
         "tuned": (files, tuned)},
    )  # fmt: skip
    drop = drop_interval(floats.accuracy, small.accuracy, seed=shop.options.seed)
    rows = claims(title, floats, small, drop, TUNED_SPEED, TUNED_DROP)
    rows.insert(0, Row(name=f"{title}: epochs of both", value=epochs, unit=""))
    saved = 100 * (1 - small.mib / floats.mib)
    return [*rows, Row(name=f"{title}: bytes saved", value=saved, unit="%")]


def epochs_of(report: dict[str, Any]) -> int:
    """Returns for how many epochs in all the picked point was trained."""
    search = report["search"]
    points = {each["key"]: each["point"] for each in search["trials"]}
    steps = int(points[search["picked"]]["pruned"])
    return int(search["chain"][steps - 1]["epochs"]) if steps else 0


def _equal(shop: Workshop, size: int, epochs: int, recipe: dict[str, str]) -> Trained:
    """Trains the unpruned model on, from the labels alone; kept in the cache."""
    if not epochs:
        return shop.trained
    options = FinetuneOptions(epochs=epochs, size=size, lr=float(recipe["prune_lr"]),
                              batch=int(recipe["prune_batch"]), seed=shop.options.seed)  # fmt: skip
    inputs = {"weights": shop.trained.sha256, "images": digest_of(shop.data.train),
              "options": options}  # fmt: skip

    def train(out: Path) -> None:
        finetune(shop.trained, shop.data, options, out / "equal.pt", progress=shop.progress)

    folder, _ = shop.cache.files("trained-equally-long", inputs, train)
    return load(folder / "equal.pt")
