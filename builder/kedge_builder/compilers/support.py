"""Which classes of the catalogue the builder can build for, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from kedge_builder.compilers.tensorrt import KINDS
from kedge_shared.device_classes import DeviceClass, QuantizationForm
from kedge_shared.errors import InputError
from kedge_shared.versions import in_range

#: Runtime → the forms that the builder writes for it.
FORMS: Mapping[str, frozenset[QuantizationForm]] = {
    "ncnn": frozenset({"ncnn-float"}),
    "onnxruntime": frozenset({"qdq-u8s8", "qdq-s8s8"}),
    "openvino": frozenset({"nncf-mixed"}),
    "rknn": frozenset({"rknn-int8"}),
    "tensorrt": frozenset({"qdq-s8s8", "float16"}),
    "tensorrt-rtx": frozenset({"qdq-s8s8"}),
}
#: Releases of TensorRT that have no flags for precisions: a range that takes one is too wide.
_STRONG = ("11.0", "11.99", "99.0")


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
    bounds = device_class.runtime.range
    if device_class.form == "float16" and any(in_range(each, bounds) for each in _STRONG):
        raise InputError(
            f"class {name} wants float16 of TensorRT {bounds}, which has no flag for it from 11 on",
            f'bound the range: "{bounds},<11"',
        )
    if runtime == "rknn" and len(device_class.soc) != 1:
        raise InputError(f"class {name} runs rknn, whose models are for one SoC", "name it as soc")
    if device_class.plan_sm and runtime not in KINDS:
        raise InputError(f"class {name} wants plans, and {runtime} has none")
    if device_class.version_compatible and (runtime != "tensorrt" or not device_class.plan_sm):
        raise InputError(
            f"class {name} wants version-compatible plans, which classic TensorRT alone makes",
            "name tensorrt as its runtime and the GPU as plan_sm",
        )
