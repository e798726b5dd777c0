"""What building its plan takes of a board, read from the ONNX that is signed."""

from __future__ import annotations

from collections.abc import Sequence

from kedge_builder.measure.engines import EngineFile
from kedge_builder.quantize.half import is_marked
from kedge_shared.device_classes import DeviceClass
from kedge_shared.planfit import BUILDERS
from kedge_shared.plans import OnDevice


def on_device(device_class: DeviceClass, files: Sequence[EngineFile]) -> OnDevice:
    """Returns what a board of a class needs, and which precisions its compiler is allowed.

    FP16 beside INT8 is what the class's budgets are for; of a float model it is a choice, and one
    that the build may have taken back.
    """
    if device_class.runtime.name not in BUILDERS:
        return OnDevice()
    import onnx

    engine = next(each.path for each in files if each.role == "engine")
    model = onnx.load(str(engine))
    int8 = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return OnDevice(int8=int8, half=device_class.form != "float16" or is_marked(model))
