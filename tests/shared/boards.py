"""Boards and releases for the resolver's table, by the names that the table uses."""

from __future__ import annotations

from dataclasses import replace

from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import Fallback, FileRef, Manifest, Requires
from kedge_shared.plans import OnDevice, Plan, TimingCache
from kedge_shared.protocol import DeviceFacts
from tests.shared.samples import manifest

ONNX, PLAN, OTHER, CACHE = ("a" * 64, "1" * 64, "2" * 64, "3" * 64)

ORIN = DeviceFacts(
    arch="aarch64", memory_mb=7620, runtimes={"tensorrt": "10.3.0", "onnxruntime": "1.23.0"},
    cpu_flags=("asimd", "asimddp"), sm=87, agent="0.9", soc="tegra234", module="p3767-0005",
    l4t="36.4.3", jetpack="6.2", python="3.10.12", libraries={"tensorrt": "10.3.0", "cuda": "12.6"},
    ways=("plans", "lean", "build", "fallback"),
)  # fmt: skip
NANO = replace(
    ORIN, memory_mb=3956, runtimes={"tensorrt": "8.2.1"}, sm=53, soc="tegra210", l4t="32.7.1",
    module="p3448-0000", python="3.6.9", libraries={"tensorrt": "8.2.1", "cuda": "10.2"},
)  # fmt: skip
RTX = DeviceFacts(
    arch="x86_64", memory_mb=32000, runtimes={"tensorrt-rtx": "1.7.1.116"}, sm=89, agent="0.9",
    drivers={"nvidia": "580.65.06"}, libraries={"cuda": "13.0"}, gpu_memory_mb=12282,
    ways=("plans", "build"),
)  # fmt: skip
ROCK = DeviceFacts(
    arch="aarch64", memory_mb=7900, runtimes={"rknn": "2.3.2"}, agent="0.9", soc="rk3588",
    drivers={"rknpu": "0.9.8"}, ways=("plans",),
)  # fmt: skip

EXACT = Plan(file=PLAN, runtime="tensorrt", version="10.3.0.30", onnx=ONNX, sm=(87,), cuda=12)
FORWARD = replace(EXACT, version="8.6.2.3", version_compatible=True)
RTX_PLAN = Plan(
    file=PLAN, runtime="tensorrt-rtx", version="1.7.1.116", onnx=ONNX, sm=(86, 89, 120), cuda=13
)
RKNN_PLAN = Plan(file=PLAN, runtime="rknn", version="2.3.2", onnx=ONNX, soc=("rk3588",))
TIMINGS = TimingCache(file=CACHE, version="10.3.0.30", sm=87, cuda=12)
ON_CPU = Fallback(runtime=RuntimeRange(name="onnxruntime", range=">=1.20,<2"))


def release(
    *plans: Plan,
    runtime: str = "tensorrt",
    versions: str = ">=8,<12",
    requires: Requires | None = None,
    on_device: OnDevice | None = None,
    fallback: Fallback | None = None,
    caches: tuple[TimingCache, ...] = (),
) -> Manifest:
    """A release whose engine is the ONNX, with these plans of it."""
    files = [FileRef(role="engine", name="model.onnx", sha256=ONNX, length=10)]
    files += [
        FileRef(role="plan", name=f"model-{at}.plan", sha256=each.file, length=9)
        for at, each in enumerate(plans) if each.file != ONNX
    ]  # fmt: skip
    files += [FileRef(role="timing-cache", name="timings", sha256=CACHE, length=9) for _ in caches]
    return replace(
        manifest(), files=(*files, manifest().files[1]),
        runtime=RuntimeRange(name=runtime, range=versions), requires=requires or Requires(),
        plans=plans, on_device=on_device or OnDevice(), fallback=fallback, timing_caches=caches,
    )  # fmt: skip
