"""RKNN files and rknn-toolkit-lite2 without Rockchip: as 2.5.0 writes the first and speaks."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kedge_agent.hardware import Hardware

#: What a Rock 5B with the toolkit's own librknnrt tells.
ROCK = Hardware(soc="rk3588", libraries={"rknn": "2.5.0"})


def rknn_file(version: str = "2.5.0", soc: tuple[str, ...] = ("rk3588",), body: int = 256) -> bytes:
    """Returns a file that says of itself what toolkit 2.5.0's do, around nothing."""
    head = b"RKNN" + bytes(4) + struct.pack("<QQ", 6, body)
    text = json.dumps({"connection": [], "target_platform": list(soc), "version": version}).encode()
    return head.ljust(64, b"\0") + b"\x5a" * body + struct.pack("<Q", len(text)) + text


class FakeLite:
    """``RKNNLite`` with the calls that Kedge makes; codes and ``None`` as it gives them.

    Attributes:
        made: Every one so far.
    """

    NPU_CORE_AUTO = 0
    made: ClassVar[list[FakeLite]] = []
    outputs: ClassVar[list[Any]] = []
    codes: ClassVar[dict[str, int]] = {}

    def __init__(self, verbose: bool = False, verbose_file: str | None = None) -> None:
        self.calls: list[str] = []
        self.seen: Any = None
        FakeLite.made.append(self)

    def load_rknn(self, path: str, key_path: str | None = None) -> int:
        self.calls.append("load_rknn")
        assert Path(path).read_bytes()[:4] == b"RKNN"
        return self.codes.get("load_rknn", 0)

    def init_runtime(self, target: str | None = None, core_mask: int = 0) -> int:
        self.calls.append("init_runtime")
        return self.codes.get("init_runtime", 0)

    def inference(self, inputs: list[Any], data_format: list[str] | None = None) -> Any:
        self.calls.append("inference")
        self.seen = np.array(inputs[0]), data_format
        return [np.array(each) for each in self.outputs] if self.outputs else None

    def release(self) -> None:
        self.calls.append("release")
