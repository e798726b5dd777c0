"""Files as boards have them, put together from what their documents and owners publish.

None was recorded by this project: it has had no such board (docs/hardware.md).
"""

from __future__ import annotations

from pathlib import Path

ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 atomics asimdhp asimddp\n"
MEMORY = "MemTotal:        7802668 kB\nMemFree:          1204 kB\n"

Tree = dict[str, bytes]


def jetson(model: str, *compatible: str, release: str, **more: bytes) -> Tree:
    return {
        "proc/device-tree/model": model.encode() + b"\0",
        "proc/device-tree/compatible": b"".join(each.encode() + b"\0" for each in compatible),
        "etc/nv_tegra_release": release.encode(),
        "proc/cpuinfo": ARM.encode(),
        "proc/meminfo": MEMORY.encode(),
    } | {name.replace("__", "/"): body for name, body in more.items()}


def library(name: str) -> str:
    return f"usr/lib/aarch64-linux-gnu/{name}"


R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed\n"
R35 = "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue\n"
R32 = "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat\n"
JETPACK_6: Tree = {
    library("libnvinfer.so.10.3.0"): b"", library("libnvinfer.so.10"): b"",
    library("libnvinfer_lean.so.10.3.0"): b"", library("libnvinfer_plugin.so.10.3.0"): b"",
    "usr/local/cuda/version.json": b'{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
    "proc/driver/nvidia/version": (
        b"NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  "
        b"(buildbrain@mobile-u64-6336-d8000)  Tue Jan  7 17:35:12 PST 2025\n"
    ),
}  # fmt: skip

ORIN_NANO = jetson(
    "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
    "nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234", release=R36,
) | JETPACK_6  # fmt: skip
ORIN_NX = jetson(
    "NVIDIA Jetson Orin NX Engineering Reference Developer Kit",
    "nvidia,p3768-0000+p3767-0000", "nvidia,p3767-0000", "nvidia,tegra234", release=R36,
) | JETPACK_6  # fmt: skip
AGX_ORIN = jetson(
    "NVIDIA Jetson AGX Orin Developer Kit",
    "nvidia,p3737-0000+p3701-0000", "nvidia,p3701-0000", "nvidia,tegra234", release=R36,
) | JETPACK_6  # fmt: skip
XAVIER_NX = jetson(
    "NVIDIA Jetson Xavier NX Developer Kit",
    "nvidia,p3509-0000+p3668-0000", "nvidia,tegra194", release=R35,
) | {
    library("libnvinfer.so.8.5.2"): b"",
    "usr/local/cuda/version.json": b'{"cuda": {"version": "11.4.315"}}',
}  # fmt: skip
NANO = jetson(
    "NVIDIA Jetson Nano Developer Kit",
    "nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,jetson-nano", "nvidia,tegra210", release=R32,
) | {
    library("libnvinfer.so.8.2.1"): b"",
    "usr/local/cuda/version.txt": b"CUDA Version 10.2.300\n",
}  # fmt: skip
ROCK_5B: Tree = {
    "proc/device-tree/model": b"Radxa ROCK 5B\0",
    "proc/device-tree/compatible": b"radxa,rock-5b\0rockchip,rk3588\0",
    "sys/module/rknpu/version": b"0.9.8\n",
    "usr/lib/librknnrt.so": b"\x7fELF" + bytes(500)
    + b"librknnrt version: 2.3.2 (429f97ae6b@2025-04-09T09:09:27)\0" + bytes(99),
    "proc/cpuinfo": ARM.encode(), "proc/meminfo": MEMORY.encode(),
}  # fmt: skip
ORANGE_PI_5: Tree = {
    "proc/device-tree/model": b"Orange Pi 5\0",
    "proc/device-tree/compatible": b"xunlong,orangepi-5\0rockchip,rk3588s\0",
    "proc/cpuinfo": ARM.encode(), "proc/meminfo": MEMORY.encode(),
}  # fmt: skip
PI_5: Tree = {
    "proc/device-tree/model": b"Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/device-tree/compatible": b"raspberrypi,5-model-b\0brcm,bcm2712\0",
    "proc/cpuinfo": ARM.encode(), "proc/meminfo": MEMORY.encode(),
}  # fmt: skip
PI_4: Tree = {
    "proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": b"raspberrypi,4-model-b\0brcm,bcm2711\0",
    "proc/cpuinfo": b"Features\t: fp asimd evtstrm crc32 cpuid\n", "proc/meminfo": MEMORY.encode(),
}  # fmt: skip
DESKTOP: Tree = {
    "sys/class/dmi/id/sys_vendor": b"ASUS\n", "sys/class/dmi/id/product_name": b"System Product\n",
    "proc/driver/nvidia/version": (
        b"NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 06:54:38 UTC 2025\n"
    ),
    "sys/class/drm/card0/device/vendor": b"0x10de\n",
    "proc/cpuinfo": b"flags\t\t: fpu fma avx2 avx512f avx512_vnni\n",
    "proc/meminfo": b"MemTotal: 32768000 kB\n",
}  # fmt: skip
NUC: Tree = {
    "sys/class/drm/card1/device/vendor": b"0x8086\n",
    "proc/cpuinfo": b"flags\t\t: fpu fma avx2 avx_vnni\n", "proc/meminfo": MEMORY.encode(),
}  # fmt: skip


def plant(root: Path, tree: Tree) -> Path:
    for name, body in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return root
