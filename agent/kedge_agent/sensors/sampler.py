"""One board's readings, window by window."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kedge_agent.disk import free_bytes
from kedge_agent.sensors import load, nvml, thermal, throttling
from kedge_shared.errors import StorageError
from kedge_shared.protocol import BoardReadings

_ROOT = Path("/")


class Sampler:
    """Reads sensors and remembers the counters of the last look.

    Args:
        state_dir: Whose file system's room is told.
        root: Of the file system.
        look_at_gpu: Reads a discrete GPU.
    """

    def __init__(
        self,
        state_dir: Path,
        root: Path = _ROOT,
        look_at_gpu: Callable[[], nvml.GpuReading | None] = nvml.look,
    ) -> None:
        self._state_dir, self._root, self._look_at_gpu = state_dir, root, look_at_gpu
        self._cpu = load.cpu_time(root)
        self._throttling = throttling.look(root)

    def take(self) -> BoardReadings:
        """Returns the readings since the last call, or since the start."""
        root = self._root
        cpu, held = load.cpu_time(root), throttling.look(root)
        share = load.cpu_share(self._cpu, cpu)
        throttled = throttling.between(self._throttling, held)
        self._cpu, self._throttling = cpu, held
        temperatures, gpu = thermal.temperatures(root), load.gpu_share(root)
        discrete = self._look_at_gpu() if gpu is None else None
        if discrete is not None:
            gpu = discrete.share
            temperatures = {**temperatures, "gpu": discrete.temperature_c}
            throttled = (*(throttled or ()), *discrete.throttled)
        return BoardReadings(
            cpu=share,
            gpu=gpu,
            npu=load.npu_share(root),
            memory_available_mb=load.memory_available_mb(root),
            disk_free_mb=self._disk_free_mb(),
            temperatures_c=temperatures,
            throttled=throttled,
        )

    def _disk_free_mb(self) -> float | None:
        with suppress(StorageError):
            return free_bytes(self._state_dir) / 2**20
        return None
