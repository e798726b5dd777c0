"""What a runtime does not take is one line that names the operator."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from kedge_builder.measure.engines import EngineFile, load
from kedge_shared.errors import InputError

RUNTIMES = ["onnxruntime", "openvino"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_operator_that_the_runtime_lacks_is_named(tmp_path: Path, runtime: str) -> None:
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8])
        for name in ("images", "output0")
    ]
    node = helper.make_node("Wobble", ["images"], ["output0"], domain="com.acme")
    model = helper.make_model(
        helper.make_graph([node], "g", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)],
        ir_version=8,
    )
    path = tmp_path / "odd.onnx"
    onnx.save(model, str(path))
    with pytest.raises(InputError, match=r"lacks the operator com\.acme[:.]Wobble of odd\.onnx"):
        load(runtime, [EngineFile("engine", path)], 1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_junk_is_named(tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match=rf"{runtime} does not load junk\.onnx") as caught:
        load(runtime, [EngineFile("engine", path)], 1)
    assert "\n" not in str(caught.value)
