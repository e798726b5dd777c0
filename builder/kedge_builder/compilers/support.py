"""Which classes of the catalogue the builder can build for, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from kedge_builder.compilers.tensorrt import KINDS
from kedge_shared.device_classes import DeviceClass, QuantizationForm
from kedge_shared.errors import InputError

#: Runtime → the forms that the builder writes for it.
FORMS: Mapping[str, frozenset[QuantizationForm]] = {
    "ncnn": frozenset({"ncnn-float"}),
    "onnxruntime": frozenset({"qdq-u8s8", "qdq-s8s8"}),
    "openvino": frozenset({"nncf-mixed"}),
    "rknn": frozenset({"rknn-int8"}),
    "tensorrt": frozenset({"qdq-s8s8"}),
    "tensorrt-rtx": frozenset({"qdq-s8s8"}),
}


def check_class(device_class: DeviceClass) -> None:
    """Refuses a class that the builder cannot build for.

    Raises:
        InputError: In one line that names what is missing.
    """
    name, runtime = device_class.name, device_class.runtime.name
    forms = FORMS.get(runtime)
    if forms is None:
        raise InputError(
            f"class {name} runs {runtime}, which the builder cannot build for yet",
            f"it builds for {', '.join(sorted(FORMS))}",
        )
    if device_class.form not in forms:
        raise InputError(
            f"class {name} wants {device_class.form} for {runtime}, which the builder does not "
            "write yet",
            f"it writes {', '.join(sorted(forms))}",
        )
    if runtime == "rknn" and len(device_class.soc) != 1:
        raise InputError(f"class {name} runs rknn, whose models are for one SoC", "name it as soc")
    if device_class.plan_sm and runtime not in KINDS:
        raise InputError(f"class {name} wants plans, and {runtime} has none")
