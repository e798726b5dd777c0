"""The peers run as their users run them, and keep their hands off the data that is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.builder import DEMO_WEIGHTS
from benchmarks.peers import PEERS, Material
from demo.shapes import draw_dataset
from kedge_builder.cache import Cache
from kedge_builder.data.datasets import read_data
from kedge_builder.measure.engines import load
from kedge_builder.models.weights import load as load_weights
from kedge_builder.progress import Progress
from kedge_builder.quantize.quantizer import engine_files
from kedge_builder.recipe import BuildOptions
from kedge_builder.workshop import Workshop
from kedge_shared.device_classes import catalogue

COUNT, SIZE = 8, 160
#: What the peers' own code warns of is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("peers")
    drawn = draw_dataset(folder / "shapes", train=2 * COUNT, val=4, size=SIZE, seed=1)
    options = BuildOptions(
        weights=DEMO_WEIGHTS, data=drawn, classes=[catalogue()["x86-openvino"]],
        out=folder / "out", model="m", release="1", release_counter=1,
    )  # fmt: skip
    data, trained = read_data(drawn), load_weights(DEMO_WEIGHTS)
    shop = Workshop(options, trained, data, Cache(folder / "cache"), Progress(quiet=True))
    return Material(DEMO_WEIGHTS, shop.source(SIZE), data.pool, COUNT, data.classes, True)


@pytest.mark.parametrize(
    ("runtime", "name"), [(runtime, name) for runtime in PEERS for name in PEERS[runtime]]
)
def test_a_peer_makes_an_engine_that_runs(
    runtime: str, name: str, material: Material, tmp_path: Path
) -> None:
    before = seen(material)
    PEERS[runtime][name](material, tmp_path)
    engine = load(runtime, engine_files(tmp_path), 1)
    raw = engine.infer(np.full((1, 3, SIZE, SIZE), 0.5, np.float32))
    assert raw.shape[:2] == (1, 4 + len(material.classes))
    assert len(list(tmp_path.glob("model.*"))) == (2 if runtime == "openvino" else 1)
    assert seen(material) == before


def seen(material: Material) -> list[Path]:
    """Everything beside the given weights and images."""
    root = material.pool[0].image.parents[2]
    return sorted([*root.rglob("*"), *material.weights.parent.iterdir()])
