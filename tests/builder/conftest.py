"""What the tests of quantizing share: the small fixture exported once, over a few images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kedge_builder.cache import Cache
from kedge_builder.data.datasets import read_data
from kedge_builder.models import weights
from kedge_builder.progress import Progress
from kedge_builder.quantize.observe import Observations, observe
from kedge_builder.quantize.source import Source
from kedge_builder.recipe import BuildOptions
from kedge_builder.workshop import Workshop
from kedge_shared.device_classes import find_class
from tests.conftest import FIXTURE

_SIZE = 96


@pytest.fixture(scope="session")
def shop(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A build's state with 12 images to calibrate, 10 to choose and 10 to judge."""
    folder = tmp_path_factory.mktemp("shop")
    data = read_data(shapes)
    few = replace(data, calibrate=data.calibrate[:12], select=data.select[:10], gate=data.gate[:10])
    options = BuildOptions(
        weights=FIXTURE, data=shapes, classes=[find_class("x86-onnxruntime")], out=folder / "out",
        model="shapes", release="1", release_counter=1, input_size=_SIZE,
    )  # fmt: skip
    cache = Cache(folder / "cache")
    return Workshop(options, weights.load(FIXTURE), few, cache, Progress(quiet=True))


@pytest.fixture(scope="session")
def source(shop: Workshop) -> Source:
    """The float model at 96 px."""
    return shop.source(_SIZE)


@pytest.fixture(scope="session")
def observed(shop: Workshop, source: Source) -> Observations:
    """What four calibration images do to it."""
    return observe(source.onnx, source.batches(shop.data.calibrate[:4]), lambda: None, threads=1)
