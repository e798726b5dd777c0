"""What a board is: facts from its files, its class, and the commands that tell them."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kedge_agent import facts, hardware
from kedge_agent.device_class_cli import app
from kedge_agent.sensors.nvml import Gpu
from kedge_shared.detection import Detected, detect
from kedge_shared.device_classes import catalogue
from kedge_shared.protocol import DeviceFacts
from tests.agent.board_trees import (
    AGX_ORIN,
    DESKTOP,
    NANO,
    NUC,
    ORANGE_PI_5,
    ORIN_NANO,
    ORIN_NX,
    PI_4,
    PI_5,
    R32,
    R35,
    R36,
    ROCK_5B,
    XAVIER_NX,
    Tree,
    plant,
)

ORT = {"onnxruntime": "1.23.0"}


def board(
    root: Path,
    tree: Tree,
    installed: dict[str, str],
    *,
    arch: str = "aarch64",
    gpu: Gpu | None = None,
) -> DeviceFacts:
    return facts.gather(plant(root, tree), installed, arch, lambda: gpu)


def classed(found: DeviceFacts) -> Detected:
    return detect(found, catalogue().values())


# -- facts ---------------------------------------------------------------------------------------


def test_an_orin(tmp_path: Path) -> None:
    found = board(tmp_path, ORIN_NANO, {})
    assert (found.soc, found.module, found.sm) == ("tegra234", "p3767-0005", 87)
    assert (found.l4t, found.jetpack) == ("36.4.3", "6.2")
    assert found.libraries == {"tensorrt": "10.3.0", "cuda": "12.6.11"}
    assert found.lean_runtimes == ("10.3.0",)
    assert found.drivers == {"nvidia": "540.4.0"}
    assert found.board == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert (found.memory_mb, found.gpu_memory_mb) == (7619.8, None)
    assert found.cpu_flags == ("asimd", "asimddp")
    assert found.python == platform.python_version()


@pytest.mark.parametrize(
    ("tree", "soc", "module", "sm", "jetpack", "libraries"),
    [
        (ORIN_NX, "tegra234", "p3767-0000", 87, "6.2", {"tensorrt": "10.3.0", "cuda": "12.6.11"}),
        (AGX_ORIN, "tegra234", "p3701-0000", 87, "6.2", {"tensorrt": "10.3.0", "cuda": "12.6.11"}),
        (XAVIER_NX, "tegra194", "p3668-0000", 72, "5.1.2",
         {"tensorrt": "8.5.2", "cuda": "11.4.315"}),
        (NANO, "tegra210", "p3448-0000", 53, "4.6.1", {"tensorrt": "8.2.1", "cuda": "10.2.300"}),
        (ROCK_5B, "rk3588", "", None, "", {"rknn": "2.3.2"}),
        (ORANGE_PI_5, "rk3588", "", None, "", {}),
        (PI_5, "bcm2712", "", None, "", {}),
        (PI_4, "bcm2711", "", None, "", {}),
        (DESKTOP, "", "", None, "", {}),
        ({}, "", "", None, "", {}),
    ],
)  # fmt: skip
def test_what_files_tell(
    tmp_path: Path, tree: Tree, soc: str, module: str, sm: int | None, jetpack: str,
    libraries: dict[str, str],
) -> None:  # fmt: skip
    found = hardware.look(plant(tmp_path, tree))
    assert (found.soc, found.module, found.sm) == (soc, module, sm)
    assert (found.jetpack, found.libraries) == (jetpack, libraries)


def test_drivers_and_gpus(tmp_path: Path) -> None:
    assert hardware.look(plant(tmp_path / "a", ROCK_5B)).drivers == {"rknpu": "0.9.8"}
    desktop = hardware.look(plant(tmp_path / "c", DESKTOP))
    assert (desktop.drivers, desktop.gpus) == ({"nvidia": "580.65.06"}, ("nvidia",))
    assert desktop.board == "ASUS System Product"
    card = board(tmp_path / "c", DESKTOP, {}, arch="x86_64", gpu=Gpu(89, 12282.0))
    assert (card.sm, card.gpu_memory_mb) == (89, 12282.0)


NAMES = b"DRIVER_MAJOR.DRIVER_MINOR.DRIVER_PATCHLEVEL\n"


@pytest.mark.parametrize(
    ("tree", "drivers"),
    [
        # The agent's user reads no debugfs: this is all that it is told.
        ({"sys/module/rknpu/version": b"0.9.8\n"}, {"rknpu": "0.9.8"}),
        ({"sys/module/rknpu/version": b"0.9.8\n",
          "sys/kernel/debug/rknpu/version": b"RKNPU driver: v0.9.6\n"}, {"rknpu": "0.9.8"}),
        ({"proc/rknpu/version": b"RKNPU driver: v0.9.6\n"}, {"rknpu": "0.9.6"}),
        ({"sys/module/rknpu/version": NAMES,
          "sys/kernel/debug/rknpu/version": b"RKNPU driver: v0.9.3\n"}, {"rknpu": "0.9.3"}),
        ({"sys/module/rknpu/version": NAMES}, {"rknpu": ""}),
        ({"sys/bus/platform/drivers/RKNPU/bind": b""}, {"rknpu": ""}),
        ({"dev/rknpu": b""}, {"rknpu": ""}),
        ({}, {}),
    ],
)  # fmt: skip
def test_the_npus_driver_as_anybody_may_read_it(
    tmp_path: Path, tree: Tree, drivers: dict[str, str]
) -> None:
    assert hardware.look(plant(tmp_path, tree)).drivers == drivers


def test_of_several_libraries_the_newest_is_told_and_every_lean_one(tmp_path: Path) -> None:
    names = ("libnvinfer.so.8.6.2", "libnvinfer.so.10.3.0", "libnvinfer.so.10",
             "libnvinfer_lean.so.8.6.2", "libnvinfer_lean.so.10.3.0")  # fmt: skip
    found = hardware.look(plant(tmp_path, {f"usr/lib/x-linux-gnu/{each}": b"" for each in names}))
    assert found.libraries == {"tensorrt": "10.3.0"}
    assert found.lean_runtimes == ("8.6.2", "10.3.0")
    library = hardware.lean_runtime("8.6.2.3", tmp_path)
    assert library == tmp_path / "usr/lib/x-linux-gnu/libnvinfer_lean.so.8.6.2"
    assert hardware.lean_runtime("8.6.1", tmp_path) is None


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack"),
    [
        (R36.replace("4.3", "4.0"), "36.4.0", "6.1"),
        (R36.replace("4.3", "3.0"), "36.3.0", "6.0"),
        (R36.replace("4.3", "4.7"), "36.4.7", ""),  # a security release: no JetPack of its own
        (R36.replace("4.3", "5.0"), "36.5.0", "6.2.2"),
        (R32, "32.7.1", "4.6.1"),
        (R32.replace("7.1", "7.4"), "32.7.4", "4.6.4"),
        (R32.replace("7.1", "7.6"), "32.7.6", "4.6.6"),
        (R32.replace("7.1", "7.9"), "32.7.9", ""),  # not 4.6.1 because it begins like it
        (R35.replace("4.1", "6.0"), "35.6.0", "5.1.4"),
        (R35.replace("4.1", "6.1"), "35.6.1", "5.1.5"),
        (R35.replace("4.1", "6.2"), "35.6.2", "5.1.5"),
        (R36.replace("R36", "R38").replace("4.3", "4.0"), "38.4.0", "7.1"),
        (R36.replace("R36", "R39").replace("4.3", "2.0"), "39.2.0", "7.2"),
        (R36.replace("R36", "R99"), "99.4.3", ""),
        ("something else", "", ""),
        ("", "", ""),
    ],
)
def test_jetson_linux(tmp_path: Path, release: str, l4t: str, jetpack: str) -> None:
    found = hardware.look(plant(tmp_path, {"etc/nv_tegra_release": release.encode()}))
    assert (found.l4t, found.jetpack) == (l4t, jetpack)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted({*ORIN_NANO, *ROCK_5B, *DESKTOP, *NANO})),
                       st.binary(max_size=60)))  # fmt: skip
def test_garbage_is_no_error(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    hardware.look(plant(tmp_path_factory.mktemp("garbage"), tree))


# -- class ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "installed", "name", "ready", "why"),
    [
        (ORIN_NANO, ORT, "jetson-orin-nano", False,
         "tegra234, module p3767-0005, aarch64, SM 87; not ready: tensorrt 10.3.0 is on the board, "
         "but agent 0.1.0 has no runtime that loads it"),
        (ORIN_NANO, {"tensorrt": "10.3.0"}, "jetson-orin-nano", True, "10.3.0 satisfies"),
        (ORIN_NX, ORT, "jetson-orin-nx", False, "module p3767-0000"),
        (AGX_ORIN, ORT, "jetson-agx-orin", False, "module p3701-0000"),
        (XAVIER_NX, ORT, "jetson-xavier-nx", False, "tegra194"),
        (NANO, ORT, "jetson-nano", False, "tegra210"),
        (ROCK_5B, ORT, "rk3588", False, "rknn 2.3.2 is on the board, but agent"),
        (ORANGE_PI_5, ORT, "rk3588", False, "runtime rknn is not on the board"),
        (PI_5, ORT, "rpi5", True, "bcm2712, aarch64, asimd, asimddp; onnxruntime 1.23.0"),
        (PI_5, {}, "rpi5", False, "runtime onnxruntime is not on the board"),
        (PI_4, ORT, "rpi4", True, "bcm2711"),
    ],
)  # fmt: skip
def test_which_class(
    tmp_path: Path, tree: Tree, installed: dict[str, str], name: str, ready: bool, why: str
) -> None:
    found = classed(board(tmp_path, tree, installed))
    assert (found.device_class, found.ready) == (name, ready), found.reason
    assert why in found.reason
    assert {each.name for each in found.others} == {*catalogue()} - {name}
    assert not any(each.hardware for each in found.others)


def test_why_not_the_near_ones(tmp_path: Path) -> None:
    found = classed(board(tmp_path, ORIN_NANO, ORT))
    why = {each.name: each.reason for each in found.others}
    assert why["jetson-orin-nx"] == "its module is p3767-0005, not p3767-0000 or p3767-0001"
    assert why["jetson-xavier-nx"] == "it is tegra234, not tegra194"
    assert why["x86-openvino"] == "it is aarch64, not x86_64 or amd64"
    pi = {each.name: each.reason for each in classed(board(tmp_path / "pi", PI_4, ORT)).others}
    assert pi["rpi5"] == "it is bcm2711, not bcm2712"


def test_an_orin_with_jetpack_7_is_known_and_not_sent_to_until_somebody_tried(
    tmp_path: Path,
) -> None:
    newer = ORIN_NANO | {
        "etc/nv_tegra_release": R36.replace("R36", "R39").replace("4.3", "2.0").encode()
    }
    found = classed(board(tmp_path, newer, {"tensorrt": "10.16.2.10"}))
    assert (found.device_class, found.ready) == ("jetson-orin-nano", False)
    assert "Jetson Linux 39.2.0 is outside >=36.4,<37" in found.reason


def test_a_jetson_in_a_container_says_why_it_is_none(tmp_path: Path) -> None:
    masked = {name: body for name, body in ORIN_NANO.items() if "device-tree" not in name}
    found = classed(board(tmp_path, masked, {"tensorrt": "10.3.0"}))
    why = {each.name: each.reason for each in found.others}
    assert found.device_class is None
    assert "--security-opt systempaths=unconfined" in why["jetson-orin-nano"]


@pytest.mark.parametrize(
    ("drivers", "ready", "why"),
    [
        ({"rknpu": "0.9.8"}, True, "rknn 2.5.0 satisfies"),
        ({"rknpu": ""}, True, "rknn 2.5.0 satisfies"),
        ({"rknpu": "0.8.2"}, False, "driver rknpu 0.8.2 is outside"),
        ({}, False, "driver rknpu >=0.9.2 is required, the board tells none"),
    ],
)
def test_a_driver_whose_version_nobody_may_read_is_not_wrong_by_itself(
    tmp_path: Path, drivers: dict[str, str], ready: bool, why: str
) -> None:
    rock = board(tmp_path, ROCK_5B, {"rknn": "2.5.0"})
    found = classed(replace(rock, drivers=drivers))
    assert (found.device_class, found.ready) == ("rk3588", ready)
    assert why in found.reason


def test_a_computer_takes_the_class_that_can_run_now(tmp_path: Path) -> None:
    both = ORT | {"openvino": "2026.4"}
    nuc = board(tmp_path, NUC, both, arch="x86_64")
    found = classed(nuc)
    assert found.device_class == "x86-onnxruntime"
    also = {each.name: each for each in found.others if each.hardware}
    assert set(also) == {"x86-openvino", "x86-openvino-gpu"}
    assert also["x86-openvino"].ready and not also["x86-openvino-gpu"].ready
    assert "runtime openvino-gpu is not on the board" in also["x86-openvino-gpu"].reason
    assert classed(replace(nuc, runtimes={"openvino": "2026.4"})).device_class == "x86-openvino"
    assert classed(replace(nuc, cpu_flags=("avx2", "avx512_vnni"))).device_class == (
        "x86-onnxruntime-vnni"
    )


def test_a_gpu_of_another_kind_is_no_rtx(tmp_path: Path) -> None:
    runtime = {"tensorrt-rtx": "1.7.1"}
    ada = board(tmp_path, DESKTOP, runtime, arch="x86_64", gpu=Gpu(89, 12000))
    assert (classed(ada).device_class, classed(ada).ready) == ("rtx", True)
    for sm in (None, 90, 75):
        found = classed(replace(ada, sm=sm))
        why = {each.name: each.reason for each in found.others}
        assert found.device_class != "rtx" and "not one of 86, 89, 120" in why["rtx"]


@pytest.mark.parametrize(
    ("tree", "gpu", "gpus"),
    [
        # A headless driver, without nvidia-drm; with nvidia-ml-py and without.
        ({"proc/driver/nvidia/version": DESKTOP["proc/driver/nvidia/version"]}, Gpu(89, 12000),
         ("nvidia",)),
        ({"proc/driver/nvidia/version": DESKTOP["proc/driver/nvidia/version"]}, None, ("nvidia",)),
        # WSL2: NVML alone tells, beside the processor's own graphics or without.
        ({}, Gpu(89, 12000), ("nvidia",)),
        ({"sys/class/drm/card0/device/vendor": b"0x8086\n"}, Gpu(89, 12000), ("intel", "nvidia")),
        ({}, None, ()),
        # A Tegra's GPU is no card.
        (ORIN_NANO, Gpu(87, 7620), ()),
    ],
)  # fmt: skip
def test_a_card_that_the_kernels_graphics_do_not_show(
    tmp_path: Path, tree: Tree, gpu: Gpu | None, gpus: tuple[str, ...]
) -> None:
    found = board(tmp_path, tree, {"tensorrt-rtx": "1.7.1"}, arch="x86_64", gpu=gpu)
    assert found.gpus == gpus
    is_rtx = "nvidia" in gpus and gpu is not None
    assert (classed(found).device_class == "rtx") == is_rtx


def test_a_board_that_nobody_knows(tmp_path: Path) -> None:
    found = classed(board(tmp_path, {}, ORT, arch="riscv64"))
    assert (found.device_class, found.ready) == (None, False)
    assert "no class of the catalogue has a board like riscv64" in found.reason


# -- catalogue -----------------------------------------------------------------------------------


def test_every_number_of_the_catalogue_has_a_source() -> None:
    for name, each in catalogue().items():
        numbers = {"runtime.range", "input_size", "threads", "budgets"}
        numbers |= {f for f in ("sm", "plan_sm", "l4t", "modules", "cpu_flags") if getattr(each, f)}
        numbers |= {f"drivers.{driver}" for driver in each.drivers}
        if each.budgets.latency_p95_ms:
            numbers.add("budgets.latency_p95_ms")
        assert not numbers - each.sources.keys(), name
        assert all(len(source) > 10 for source in each.sources.values())


def test_no_latency_is_budgeted_where_none_was_measured() -> None:
    timed = {name for name, each in catalogue().items() if each.budgets.latency_p95_ms}
    assert timed == {"x86-onnxruntime", "x86-onnxruntime-vnni", "x86-openvino"}


# -- commands ------------------------------------------------------------------------------------


def test_list_and_show() -> None:
    listed = CliRunner().invoke(app, ["list", "--json"])
    assert {each["name"] for each in json.loads(listed.stdout)} == {*catalogue()}
    shown = CliRunner().invoke(app, ["show", "jetson-orin-nx"])
    assert "p3767-0000" in shown.stdout and "sources:" in shown.stdout
    assert CliRunner().invoke(app, ["show", "jetson-9000"]).exit_code != 0


def test_detect_tells_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pi = board(tmp_path, PI_5, ORT)
    monkeypatch.setattr(facts, "gather", lambda: pi)
    told = CliRunner().invoke(app, ["detect"])
    assert told.exit_code == 0
    assert told.stdout.splitlines()[0].startswith("rpi5: bcm2712")
    assert "  not rpi4: it is bcm2712, not bcm2711" in told.stdout
    read = json.loads(CliRunner().invoke(app, ["detect", "--json"]).stdout)
    assert (read["detected"]["device_class"], read["facts"]["soc"]) == ("rpi5", "bcm2712")
    monkeypatch.setattr(facts, "gather", lambda: replace(pi, arch="riscv64"))
    assert CliRunner().invoke(app, ["detect"]).exit_code != 0
