"""What the browser tests show of a fleet, and what they keep of its pages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kedge_shared import histogram
from kedge_shared.phases import Phase
from kedge_shared.protocol import BoardReadings, Verdict, Window
from tests.shared import samples

CLASSES = ("x86-onnxruntime", "x86-openvino")
#: Pictures are put here, where somebody asks for them.
SHOTS = os.environ.get("KEDGE_SHOTS", "")
WORSE = Verdict(
    code="accuracy", reason="label score 0.41 is under the floor of 0.60", cause="harm",
    stopped_in=Phase.PREFLIGHT, evidence={"label_score": 0.41, "floor": 0.6},
)  # fmt: skip


def reported() -> dict[str, object]:
    """Returns what is another way in a report: a search that has found a front."""
    search = samples.searched(14)
    for at, each in enumerate(search["trials"][1:]):
        accuracy = 0.63 - 0.03 * (at % 7) ** 1.3 / 3 - 0.01 * (at // 7)
        each["measured"] |= {"map50_95": accuracy, "latency_p50_ms": 54 - 5.5 * (at % 7) - at // 7}
        each |= {"title": f"pruning step {at % 7}, 320 px, int8", "feasible": at % 5 != 3}
    return {"search": search}


def window() -> Window:
    return Window(
        started=1, seconds=60, frames=1500, dropped=3, detections={"circle": 40, "square": 12},
        latency_ms=histogram.of([11.0, 12.0, 14.0] * 100),
        board=BoardReadings(cpu=0.4, temperatures_c={"soc": 51.5}),
    )  # fmt: skip


def heard(page: Any, line: Any) -> None:
    """Notes what a browser complains of; that something is not there is an answer like another."""
    if line.type == "error" and "status of 4" not in line.text:
        page.faults.append(line.text)


def shot(page: Any, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)
