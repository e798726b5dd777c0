"""ncnn: converted, loaded as the board loads it, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from kedge_agent.blobs import VerifiedBlob, seal
from kedge_agent.errors import EngineError
from kedge_agent.runtimes.ncnn import Ncnn
from kedge_builder.measure import engines
from kedge_builder.measure.engines import EngineFile
from kedge_builder.quantize.plan import Plan
from kedge_builder.quantize.source import Source
from kedge_builder.workshop import Workshop
from kedge_shared.device_classes import RuntimeRange, find_class
from kedge_shared.manifest import FileRole

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

NCNN = RuntimeRange(name="ncnn", range=">=1.0.20250503")


@pytest.fixture(scope="module")
def made(shop: Workshop, source: Source) -> tuple[EngineFile, ...]:
    device = replace(find_class("rpi5"), name="rpi5-ncnn", runtime=NCNN, form="ncnn-float")
    return shop.quantizer(device, source).make(Plan(precision="float"))


@dataclass(frozen=True)
class Spec:
    runtime = NCNN
    input = None
    output = None


def test_board_and_builder_answer_as_the_float_model(
    made: tuple[EngineFile, ...], source: Source, shop: Workshop
) -> None:
    assert [each.path.name for each in made] == ["model.param", "model.bin"]
    blobs: Mapping[FileRole, VerifiedBlob] = {each.role: seal(each.path) for each in made}
    board = Ncnn().load(blobs, Spec(), threads=1)  # type: ignore[arg-type]
    builder = engines.load("ncnn", made, 1)
    wanted = engines.load("ncnn", (EngineFile("engine", source.path),), 1)
    for batch in source.batches(shop.data.select[:3]):
        found = board.infer(batch)
        np.testing.assert_array_equal(found, builder.infer(batch))
        np.testing.assert_allclose(found, wanted.infer(batch), atol=0.05)
    board.close()


def test_what_is_no_network_is_refused(made: tuple[EngineFile, ...], tmp_path: Path) -> None:
    other = tmp_path / "model.param"
    other.write_text("not ncnn\n")
    weights = seal(made[1].path)
    with pytest.raises(EngineError, match="ncnn does not take the engine"):
        Ncnn().load({"engine": seal(other), "engine-weights": weights}, Spec(), threads=1)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="wants two files"):
        Ncnn().load({"engine": seal(other)}, Spec(), threads=1)  # type: ignore[arg-type]
