"""Sensors, from trees as boards have them. What is not there is not measured, never zero."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kedge_agent.children import clean_environment
from kedge_agent.sensors import load, nvml, thermal, throttling
from kedge_agent.sensors.nvml import GpuReading
from kedge_agent.sensors.sampler import Sampler

JETSON = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51500\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "sys/class/thermal/cooling_device0/max_state": "7\n",
    "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device1/cur_state": "0\n",
    "sys/class/thermal/cooling_device1/max_state": "25\n",
    "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
    "sys/class/hwmon/hwmon3/oc1_event_cnt": "4\n",
    "sys/class/hwmon/hwmon3/oc2_event_cnt": "0\n",
    "sys/devices/platform/bus@0/17000000.gpu/load": "637\n",
    "proc/stat": "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3 4\n",
    "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable:    2097152 kB\n",
}
PI = {
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "82000",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0x50005",
}
ROCKCHIP = {
    "sys/class/thermal/thermal_zone0/type": "npu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "60100",
    "sys/kernel/debug/rknpu/load": "NPU load:  Core0: 30%, Core1:  0%, Core2:  0%,",
}
PC = {
    "sys/class/hwmon/hwmon0/name": "coretemp",
    "sys/class/hwmon/hwmon0/temp1_input": "47000",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0",
    "sys/class/hwmon/hwmon1/name": "nvme",
    "sys/class/hwmon/hwmon1/temp1_input": "38850",
    "sys/class/hwmon/hwmon2/name": "nvme",
    "sys/class/hwmon/hwmon2/temp1_input": "39850",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "5",
    "sys/class/drm/card0/device/gpu_busy_percent": "40",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, body in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)
    return root


def test_a_jetson(tmp_path: Path) -> None:
    root = tree(tmp_path, JETSON)
    assert thermal.temperatures(root) == {"cpu-thermal": 51.5}, "a GPU that sleeps has none"
    assert load.gpu_share(root) == 0.637
    assert load.npu_share(root) is None
    assert load.memory_available_mb(root) == 2048
    before = throttling.look(root)
    assert throttling.between(None, before) == (), "a fan that turns holds nothing back"
    tree(root, {"sys/class/thermal/cooling_device1/cur_state": "9",
                "sys/class/hwmon/hwmon3/oc2_event_cnt": "2"})  # fmt: skip
    assert throttling.between(before, throttling.look(root)) == (
        "cpufreq-cpu0: slowed to step 9 of 25", "SoC over-current: 2 times",
    )  # fmt: skip


def test_a_raspberry_pi(tmp_path: Path) -> None:
    root = tree(tmp_path, PI)
    assert thermal.temperatures(root) == {"cpu-thermal": 82.0}
    found = throttling.between(None, throttling.look(root))
    assert found == ("firmware: under-voltage", "firmware: throttled"), "what was is not what is"


def test_a_rockchip_board(tmp_path: Path) -> None:
    assert load.npu_share(tree(tmp_path, ROCKCHIP)) == pytest.approx(0.1)


def test_a_pc(tmp_path: Path) -> None:
    root = tree(tmp_path, PC)
    assert thermal.temperatures(root) == {
        "coretemp Package id 0": 47.0, "nvme": 38.85, "nvme-2": 39.85,
    }  # fmt: skip
    assert load.gpu_share(root) == 0.4
    before = throttling.look(root)
    tree(root, {"sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "6"})
    assert throttling.between(before, throttling.look(root)) == ("CPU thermal throttling: 1 times",)
    # A counter that a suspended core lost says nothing.
    tree(root, {"sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "0"})
    assert throttling.between(before, throttling.look(root)) == ()


def test_a_board_without_sensors_measured_nothing(tmp_path: Path) -> None:
    found = Sampler(tmp_path, tmp_path, lambda: None).take()
    assert (found.cpu, found.gpu, found.npu, found.memory_available_mb) == (None,) * 4
    assert found.throttled is None, "not the same as: nothing holds it back"
    assert found.temperatures_c == {}
    assert found.disk_free_mb is not None


@pytest.mark.parametrize("garbage", ["", "-", "n/a", "12 13", "\xff\xfe", "9" * 400, "{}"])
def test_garbage_is_not_measured(tmp_path: Path, garbage: str) -> None:
    root = tree(tmp_path, dict.fromkeys({**JETSON, **PI, **ROCKCHIP, **PC}, garbage))
    found = Sampler(root, root, lambda: None).take()
    assert (found.cpu, found.gpu, found.npu, found.memory_available_mb) == (None,) * 4
    assert found.temperatures_c == {}


def test_shares_are_of_the_window(tmp_path: Path) -> None:
    root = tree(tmp_path, JETSON)
    sampler = Sampler(root, root, lambda: None)
    tree(root, {"proc/stat": "cpu  150 0 100 730 120 0 0 0 0 0\n"})
    assert sampler.take().cpu == pytest.approx(0.5)
    assert sampler.take().cpu is None, "no time has gone by"


def test_a_discrete_gpu_is_asked_where_sysfs_does_not_tell(tmp_path: Path) -> None:
    gpu = GpuReading(0.25, 61.0, ("GPU: power cap",))
    found = Sampler(tmp_path, tmp_path, lambda: gpu).take()
    assert (found.gpu, found.temperatures_c) == (0.25, {"gpu": 61.0})
    assert found.throttled == ("GPU: power cap",)
    jetson = Sampler(tmp_path, tree(tmp_path, JETSON), lambda: gpu).take()
    assert jetson.gpu == 0.637


#: MiB of each GPU.
MEMORY = {"gpu0": 8000, "gpu1": 24000, "gpu of GPU-7b": 48000}


class FakeNvml:
    """NVIDIA's binding, as far as it is used; the names are checked against the real one."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVML_TEMPERATURE_GPU = 0
    nvmlClocksThrottleReasonSwPowerCap = 4
    nvmlClocksThrottleReasonSwThermalSlowdown = 32
    nvmlClocksThrottleReasonHwThermalSlowdown = 64
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 128

    def __init__(self, bits: int, fails_at: str = "") -> None:
        self.bits, self.fails_at, self.open = bits, fails_at, 0

    def nvmlInit(self) -> None:
        self._step("nvmlInit")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self._step("nvmlDeviceGetHandleByIndex")
        if index < 0:
            raise self.NVMLError
        return f"gpu{index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return f"gpu of {uuid}"

    def nvmlDeviceGetMemoryInfo(self, gpu: str) -> Any:
        return SimpleNamespace(free=2**20 * MEMORY[gpu])

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _: str) -> int:
        return self.bits

    def nvmlDeviceGetUtilizationRates(self, _: str) -> Any:
        return SimpleNamespace(gpu=42)

    def nvmlDeviceGetTemperature(self, _: str, __: int) -> int:
        return 71

    def _step(self, name: str) -> None:
        if name == self.fails_at:
            raise self.NVMLError


def test_a_discrete_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(4 | 64)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert nvml.look() == GpuReading(
        0.42, 71.0, ("GPU: thermal slowdown (hardware)", "GPU: power cap")
    )
    assert fake.open == 0


@pytest.mark.parametrize(
    ("visible", "free"),
    [
        (None, 8000), ("0", 8000), ("1", 24000), ("1,0", 24000), (" 1 ", 24000),
        ("GPU-7b,0", 48000), ("", None), ("-1", None), ("none", None),
    ],
)  # fmt: skip
def test_the_gpu_that_is_measured_is_the_one_that_engines_run_on(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, free: float | None
) -> None:
    fake = FakeNvml(0)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert nvml.free_memory_mb() == free
    assert fake.open == 0
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    given = clean_environment()
    assert given.get("CUDA_VISIBLE_DEVICES") == visible
    assert given["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID", "as NVML counts"


@pytest.mark.parametrize("fails_at", ["nvmlInit", "nvmlDeviceGetHandleByIndex"])
def test_without_driver_or_gpu_it_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    fake = FakeNvml(0, fails_at)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert nvml.look() is None
    assert fake.open == 0
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.look() is None


def test_the_real_binding_has_these_names() -> None:
    real = pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    for name in vars(FakeNvml):
        if name.startswith(("nvml", "NVML")):
            assert hasattr(real, name), name
    assert real.nvmlClocksThrottleReasonHwThermalSlowdown == 64
