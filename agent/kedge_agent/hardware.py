"""What kind of board this is, from the files that its kernel and its vendor's packages leave.

Nothing is started and no package manager asked: a board's image may have none. ``root`` is the
root of the file system, so that a recorded tree stands for a board.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kedge_agent import cuda_libraries
from kedge_agent.cuda_libraries import PLACES
from kedge_agent.sensors import files
from kedge_shared.versions import major, numbers, same_release

#: SoCs by their name in /proc/device-tree/compatible.
_SOC = re.compile(r"^(?:nvidia,(tegra\d+)|rockchip,(rk\d+)s?|brcm,(bcm2\d+))$")
#: NVIDIA's modules among the boards of a ``compatible`` entry; the others are carriers. Jetson
#: Linux Developer Guide, "Jetson EEPROM Layout".
_MODULE = re.compile(r"p(?:3767|3701|3668|3448|2888|3636|3489|3310|2180)-\d{4}")
#: CUDA compute capability times ten of a Tegra's GPU. NVIDIA, "CUDA GPUs".
_SM = {"tegra210": 53, "tegra186": 62, "tegra194": 72, "tegra234": 87}
#: Jetson Linux → JetPack; a release that is not here has no name. NVIDIA, "JetPack Archive" and the
#: "Downloads and Notes" of JetPack 7; jetson_stats' table has the same.
_JETPACK = {
    "32.6.1": "4.6", "32.7.1": "4.6.1", "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4",
    "32.7.5": "4.6.5", "32.7.6": "4.6.6", "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1",
    "35.4.1": "5.1.2", "35.5.0": "5.1.3", "35.6.0": "5.1.4", "35.6.1": "5.1.5", "35.6.2": "5.1.5",
    "36.2.0": "6.0 DP", "36.3.0": "6.0", "36.4.0": "6.1", "36.4.3": "6.2", "36.4.4": "6.2.1",
    "36.5.0": "6.2.2", "38.2.0": "7.0", "38.2.1": "7.0", "38.4.0": "7.1", "39.2.0": "7.2",
}  # fmt: skip
_L4T = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
#: "NVIDIA UNIX x86_64 Kernel Module  535.129.03", "… Open Kernel Module for aarch64  540.4.0".
_NVIDIA = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")
_RKNPU = re.compile(r"v?(\d+\.\d+\.\d+)")
#: The module's own version everybody may read, where it is one: early drivers wrote the names of
#: their macros there. debugfs is root's alone.
_RKNPU_TOLD = ("sys/module/rknpu/version", "proc/rknpu/version", "sys/kernel/debug/rknpu/version")
#: One of them is there where the driver is, built in or not.
_RKNPU_THERE = ("sys/module/rknpu", "sys/bus/platform/drivers/RKNPU", "dev/rknpu")
_RKNNRT = re.compile(rb"librknnrt version: (\d+\.\d+\.\d+)")
#: Larger than any librknnrt.so so far (7 MiB).
_LIBRARY_LIMIT_BYTES = 32 * 2**20
_LEAN = "libnvinfer_lean"
_VENDORS = {"0x8086": "intel", "0x10de": "nvidia", "0x1002": "amd"}


@dataclass(frozen=True)
class Hardware:
    """What was found; empty is: not there, or not readable by this user.

    Attributes:
        board: What the board calls itself.
        soc: System on chip.
        module: NVIDIA's part number of a Jetson's module.
        sm: CUDA compute capability times ten of the SoC's GPU.
        l4t: Release of Jetson Linux.
        jetpack: NVIDIA's name for it.
        drivers: Kernel driver → version; empty where it is there and tells none.
        libraries: Vendor's library → version.
        cuda: Majors of CUDA whose runtime can be loaded; the first is what ``dlopen`` takes.
        lean_runtimes: Releases of TensorRT's lean runtime.
        gpus: Makers of the GPUs on the bus.
    """

    board: str = ""
    soc: str = ""
    module: str = ""
    sm: int | None = None
    l4t: str = ""
    jetpack: str = ""
    drivers: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    cuda: tuple[int, ...] = ()
    lean_runtimes: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()


def look(root: Path) -> Hardware:
    """Returns what the files under ``root`` tell."""
    compatible = _strings(root / "proc/device-tree/compatible")
    soc = next(_socs(compatible), "")
    l4t, cuda, drivers = _l4t(root), cuda_libraries.versions(root), _drivers(root)
    return Hardware(
        board=_board(root),
        soc=soc,
        module=next((m[0] for each in compatible if (m := _MODULE.search(each))), ""),
        sm=_SM.get(soc),
        l4t=l4t,
        jetpack=_JETPACK.get(l4t, ""),
        drivers=drivers,
        libraries=_libraries(root, cuda),
        cuda=tuple(each for version in cuda if (each := major(version)) is not None),
        lean_runtimes=_releases(root, _LEAN),
        # A headless driver shows no card among the graphics; a Tegra's is no card.
        gpus=_gpus(root, drives="nvidia" in drivers and not soc),
    )


def lean_runtime(version: str, root: Path = Path("/")) -> Path | None:
    """Returns the library of TensorRT's lean runtime of a release, where the system has it."""
    there = (
        path for place in PLACES for path in files.found(root, f"{place}/{_LEAN}.so.*")
        if same_release(path.name.removeprefix(f"{_LEAN}.so."), version)
    )  # fmt: skip
    return next(there, None)


def memory_mb(root: Path) -> float | None:
    """Returns the board's memory, MiB, or ``None``."""
    found = re.search(r"MemTotal:\s+(\d+) kB", files.text(root / "proc/meminfo"))
    return int(found[1]) / 1024 if found else None


def _strings(path: Path) -> list[str]:
    """Returns a device tree property's strings, which end with a NUL each."""
    return [each for each in files.text(path).split("\0") if each]


def _socs(compatible: list[str]) -> Iterator[str]:
    for each in compatible:
        found = _SOC.match(each)
        if found:
            yield next(name for name in found.groups() if name)


def _board(root: Path) -> str:
    tree = _strings(root / "proc/device-tree/model")
    dmi = root / "sys/class/dmi/id"
    named = (files.text(dmi / "sys_vendor"), files.text(dmi / "product_name"))
    return (tree[0] if tree else " ".join(each for each in named if each))[:100]


def _l4t(root: Path) -> str:
    found = _L4T.search(files.text(root / "etc/nv_tegra_release"))
    return f"{found[1]}.{found[2].rstrip('.')}" if found else ""


def _drivers(root: Path) -> dict[str, str]:
    nvidia = _NVIDIA.search(files.text(root / "proc/driver/nvidia/version"))
    rknpu = _rknpu(root)
    return ({"nvidia": nvidia[1]} if nvidia else {}) | ({} if rknpu is None else {"rknpu": rknpu})


def _rknpu(root: Path) -> str | None:
    """Returns the NPU driver's version, empty if it tells none; ``None`` without a driver."""
    told = (_RKNPU.search(files.text(root / each)) for each in _RKNPU_TOLD)
    found = next(filter(None, told), None)
    if found is None:
        return "" if any((root / each).exists() for each in _RKNPU_THERE) else None
    return found[1]


def _libraries(root: Path, cuda: tuple[str, ...]) -> dict[str, str]:
    found = {
        "tensorrt": max(_releases(root, "libnvinfer"), key=numbers, default=""),
        "tensorrt-rtx": max(_releases(root, "libtensorrt_rtx"), key=numbers, default=""),
        "cuda": cuda[0] if cuda else "",
        "rknn": _rknn(root),
    }
    return {name: version for name, version in found.items() if version}


def _releases(root: Path, library: str) -> tuple[str, ...]:
    """Returns the versions in the names of a library's files, such as libnvinfer.so.10.3.0."""
    start = f"{library}.so."
    names = {
        path.name.removeprefix(start)
        for place in PLACES for path in files.found(root, f"{place}/{start}*")
    }  # fmt: skip
    whole = (each for each in names if len(numbers(each)) >= 3)
    return tuple(sorted(whole, key=numbers))


def _rknn(root: Path) -> str:
    """Returns librknnrt's version, which it carries as a text alone."""
    for place in ("usr/lib", "usr/lib/aarch64-linux-gnu"):
        try:
            with (root / place / "librknnrt.so").open("rb") as file:
                found = _RKNNRT.search(file.read(_LIBRARY_LIMIT_BYTES))
        except OSError:
            continue
        if found:
            return found[1].decode()
    return ""


def _gpus(root: Path, *, drives: bool) -> tuple[str, ...]:
    """Returns the makers of the GPUs; NVIDIA's also where its driver ``drives`` one by itself."""
    codes = (files.text(path) for path in files.found(root, "sys/class/drm/card*/device/vendor"))
    shown = {_VENDORS[each] for each in codes if each in _VENDORS}
    return tuple(sorted(shown | ({"nvidia"} if drives else set())))
