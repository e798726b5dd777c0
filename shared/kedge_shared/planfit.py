"""Which plan fits which board, and which board may build one. Pure; operators read its words."""

from __future__ import annotations

from kedge_shared.plans import OnDevice, Plan, TimingCache
from kedge_shared.protocol import DeviceFacts
from kedge_shared.versions import in_range, major, numbers, same_release

#: What can build a plan from ONNX on the board itself; RKNN's compiler runs on x86 alone.
BUILDERS = frozenset({"tensorrt", "tensorrt-rtx"})
#: Plan's major → the newer major that still runs it, if it was made version-compatible.
_FORWARD = {8: 10, 10: 11}
#: Version-compatible plans begin here.
_FIRST_COMPATIBLE = ">=8.6"
_NO_CUDA = (
    "the board's CUDA is not known: no folder of libraries has libcudart.so.N "
    "(package cuda-cudart-N, or nvidia-cuda-runtime from pip)"
)
#: A container masks /sys/firmware, where /proc/device-tree leads.
_NO_DEVICE_TREE = (
    "tells no SoC: its device tree cannot be read "
    "(in a container: --security-opt systempaths=unconfined)"
)
#: GPUs without INT8 arithmetic that TensorRT knows: Maxwell and Pascal's Tegra, and Pascal's P100.
_NO_INT8 = frozenset({50, 52, 53, 60, 62})
#: GPUs that TensorRT for RTX compiles for (1.7: its ComputeCapability); no Hopper, no Jetson. Its
#: support matrices (1.0 to 1.5) do not list 80.
_RTX_SM = frozenset({75, 80, 86, 89, 120, 121})
#: Of those: INT8 is "No" in each of its support matrices.
_RTX_NO_INT8 = frozenset({75})
#: TensorRT → the oldest GPU that it was compiled for. NVIDIA, TensorRT 10.1 support matrix ("SM 7.0
#: or higher") and 10.5 release notes (Volta removed). No JetPack with 10 is for Xavier, 72.
_OLDEST_SM = ((">=10.5", 75), (">=10", 70))


def against(plan: Plan, facts: DeviceFacts) -> str:
    """Says why a plan does not run on this board; empty if it does."""
    have = facts.runtimes.get(plan.runtime, "")
    if plan.version_compatible:
        why = _not_newer(plan, have, facts)
    elif same_release(have, plan.version):
        why = ""
    else:
        why = f"plan of {plan.runtime} {plan.version}, board has {have or 'none'}"
    return why or _hardware(plan, facts)


def _not_newer(plan: Plan, have: str, facts: DeviceFacts) -> str:
    """Says why a newer TensorRT may not load an older plan; empty if it may."""
    if plan.runtime != "tensorrt" or not _goes_forward(plan.version, have):
        return f"version-compatible plan of {plan.version} does not run on {have or 'none'}"
    if not any(same_release(plan.version, each) for each in facts.lean_runtimes):
        package = f"libnvinfer-lean{major(plan.version)}"
        return f"the board lacks TensorRT's lean runtime {plan.version} (package {package})"
    return ""


def _goes_forward(made: str, have: str) -> bool:
    """8.6 and newer run on the same or a newer release of their major, 8 on 10, and 10 on 11."""
    if len(numbers(made)) < 3 or len(numbers(have)) < 3 or not in_range(made, _FIRST_COMPATIBLE):
        return False
    if major(made) == major(have):
        return in_range(have, ">=" + ".".join(map(str, numbers(made)[:3])))
    return _FORWARD.get(major(made) or 0) == major(have)


def _hardware(plan: Plan, facts: DeviceFacts) -> str:
    """Says why a plan does not run on this board's silicon; empty if it does."""
    if plan.host_code:
        return "the plan carries host code, which no board runs"
    if not plan.sm and not plan.soc:
        return "the plan does not say what it was compiled for"
    if plan.sm and facts.sm not in plan.sm:
        made = ", ".join(map(str, plan.sm))
        return f"plan for SM {made}, board has {facts.sm or 'no GPU'}"
    if plan.soc and facts.soc not in plan.soc:
        return f"plan for {', '.join(plan.soc)}, the board {told_soc(facts)}"
    return (_cuda(plan, facts) if plan.sm else "") or _memory(plan, facts)


def _cuda(plan: Plan, facts: DeviceFacts) -> str:
    """Says why the board's CUDA is not the plan's; empty if it has the plan's, among others too."""
    have = cuda_majors(facts)
    if plan.cuda is None:
        return "the plan does not say which CUDA it was compiled for"
    if not have:
        return f"plan of CUDA {plan.cuda}, {_NO_CUDA}"
    if plan.cuda not in have:
        return f"plan of CUDA {plan.cuda}, the board's is {' and '.join(map(str, have))}"
    return ""


def _memory(plan: Plan, facts: DeviceFacts) -> str:
    if plan.memory_mb is None:
        return ""
    have = device_memory_mb(facts)
    if have is None:
        return "the plan's memory cannot be checked: the GPU's is not known"
    if have < plan.memory_mb:
        return f"the plan takes {plan.memory_mb:.0f} MiB, the device has {have:.0f}"
    return ""


def cuda_majors(facts: DeviceFacts) -> tuple[int, ...]:
    """Returns the majors of CUDA that a board can load, the one that it does load first."""
    told = major(facts.libraries.get("cuda", ""))
    return facts.cuda or (() if told is None else (told,))


def cuda_major(facts: DeviceFacts) -> int | None:
    """Returns the major of the CUDA that a board loads, or ``None``."""
    return next(iter(cuda_majors(facts)), None)


def device_memory_mb(facts: DeviceFacts) -> float | None:
    """Returns what engines live in, MiB: a GPU's own memory, or the memory an SoC shares."""
    return facts.gpu_memory_mb or (facts.memory_mb if facts.soc else None)


def told_soc(facts: DeviceFacts) -> str:
    """Returns which SoC a board is, as the end of a sentence; the mend where it tells none."""
    return f"is {facts.soc}" if facts.soc else _NO_DEVICE_TREE


def buildable(runtime: str, wanted: OnDevice, facts: DeviceFacts) -> str:
    """Says why a board cannot build the plan itself; empty if it can."""
    if runtime not in BUILDERS:
        return f"{runtime} builds nothing on a board"
    if not wanted.allowed:
        return "the release does not allow building on the board"
    lacks = _gpu_lacks(runtime, wanted, facts)
    if lacks:
        return lacks
    if not cuda_majors(facts):
        # What it would build could not be told from another CUDA's, and was refused after an hour.
        return _NO_CUDA
    if wanted.memory_mb is not None and facts.memory_mb < wanted.memory_mb:
        return f"building takes {wanted.memory_mb:.0f} MiB, board has {facts.memory_mb:.0f}"
    return ""


def _gpu_lacks(runtime: str, wanted: OnDevice, facts: DeviceFacts) -> str:
    sm, version = facts.sm, facts.runtimes.get(runtime, "")
    if sm is None:
        return "the board has no GPU"
    if runtime == "tensorrt-rtx" and sm not in _RTX_SM:
        return f"tensorrt-rtx does not run on SM {sm}"
    if runtime == "tensorrt-rtx" and wanted.int8 and sm in _RTX_NO_INT8:
        return f"tensorrt-rtx has no INT8 for SM {sm}"
    oldest = next((sm for bounds, sm in _OLDEST_SM if in_range(version, bounds)), 0)
    if runtime == "tensorrt" and sm < oldest:
        return f"tensorrt {version} runs on SM {oldest} and newer, the board's is {sm}"
    return f"SM {sm} has no INT8 arithmetic" if wanted.int8 and sm in _NO_INT8 else ""


def cache_fits(cache: TimingCache, runtime: str, facts: DeviceFacts) -> bool:
    """Says whether a timing cache was taken on this kind of board; TensorRT drops others."""
    return (
        same_release(cache.version, facts.runtimes.get(runtime, ""))
        and cache.sm == facts.sm
        and cache.cuda in cuda_majors(facts)
    )
