"""What a build does with a compiler: the class's plans, and what the report says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kedge_builder.compilers.halves import to_half
from kedge_builder.compilers.layers import counted
from kedge_builder.compilers.rknn import SIMULATION
from kedge_builder.compilers.tensorrt import Compiled, Compiler
from kedge_builder.measure.engines import EngineFile
from kedge_builder.progress import Progress
from kedge_shared.device_classes import DeviceClass
from kedge_shared.errors import InputError
from kedge_shared.ids import sha256_hex
from kedge_shared.plans import Plan
from kedge_shared.rknnfile import read_header
from kedge_shared.versions import in_range


@dataclass(frozen=True)
class Plans:
    """What was compiled; empty for a class without plans.

    Attributes:
        files: The plans.
        plans: What each fits.
        section: For the report.
    """

    files: tuple[EngineFile, ...] = ()
    plans: tuple[Plan, ...] = ()
    section: dict[str, Any] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all plans together."""
        return sum(each.path.stat().st_size for each in self.files)


def compiler_of(device_class: DeviceClass) -> Compiler | None:
    """Returns what compiles a class's plans, or ``None`` where it wants none.

    Raises:
        InputError: It is not installed, or of a release that the class does not take.
    """
    if not device_class.plan_sm:
        return None
    compiler = Compiler(device_class.runtime.name)
    if not in_range(compiler.version, device_class.runtime.range):
        raise InputError(
            f"{compiler.runtime} {compiler.version} is installed, class {device_class.name} takes "
            f"{device_class.runtime.range}"
        )
    return compiler


def compile_plans(
    device_class: DeviceClass, files: Sequence[EngineFile], progress: Progress
) -> Plans:
    """Compiles the plans of a class beside its engine.

    Raises:
        InputError: The compiler is missing, or does not take the model.
    """
    if device_class.runtime.name == "rknn":
        return _rknn(files)
    compiler = compiler_of(device_class)
    if compiler is None:
        return Plans()
    import onnx

    engine = next(each.path for each in files if each.role == "engine")
    signed = engine.read_bytes()
    typed = to_half(onnx.load_from_string(signed)).SerializeToString()
    listed = ", ".join(map(str, device_class.plan_sm))
    stage = f"{device_class.name}: compiling for SM {listed}"
    with progress.stage(stage) as tick:
        made = compiler.compile(
            typed, sha256_hex(signed), device_class.plan_sm, tick,
            version_compatible=device_class.version_compatible,
        )  # fmt: skip
    path = engine.with_name("model.plan")
    path.write_bytes(made.data)
    return Plans((EngineFile("plan", path),), (made.plan,), _section(made, path))


def _rknn(files: Sequence[EngineFile]) -> Plans:
    """Returns what an RKNN model fits, as it says itself: the model is engine and plan at once."""
    path = next(each.path for each in files if each.role == "engine")
    data = path.read_bytes()
    header = read_header(data)
    made_of = path.with_suffix(SIMULATION) / "net.onnx"
    plan = Plan(
        file=sha256_hex(data), runtime="rknn", version=header.version,
        onnx=sha256_hex(made_of.read_bytes()), soc=header.soc,
    )  # fmt: skip
    section = {
        "file": path.name, "bytes": len(data), "runtime": plan.runtime, "version": plan.version,
        "soc": list(plan.soc), "onnx": plan.onnx,
        "accuracy": f"simulated by rknn-toolkit2 {plan.version}; no board was asked",
        "sensitivity": "of blocks: measured on a QDQ graph with the same number format, operator "
        "by operator; what they then cost was simulated",
    }  # fmt: skip
    return Plans(plans=(plan,), section=section)


def _section(made: Compiled, path: Path) -> dict[str, Any]:
    plan = made.plan
    return {
        "file": path.name,
        "bytes": len(made.data),
        "runtime": plan.runtime,
        "version": plan.version,
        "cuda": plan.cuda,
        "sm": list(plan.sm),
        "flags": list(plan.flags),
        "onnx": plan.onnx,
        "timing_cache": plan.timing_cache,
        "precision": counted(made.layers),
        "precision_read_from": made.read_from,
        "layers": [[each.name, each.kind, each.precision] for each in made.layers],
        "accuracy": "measured on the signed ONNX, operator by operator; the plan needs a GPU",
    }
