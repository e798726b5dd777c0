"""Which runtimes a board has, asked in children that a vendor's library may take down."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kedge_agent import facts
from kedge_agent.fetching import misfit
from kedge_shared.plans import OnDevice
from tests.shared import boards


def vendor(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str) -> None:
    """Puts a module before the vendor's own, for children."""
    (folder / f"{name}.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_one_that_crashes_hides_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = facts.runtimes()
    assert {"onnxruntime", "openvino"} <= set(whole)
    vendor(tmp_path, monkeypatch, "openvino", "import os\nos.abort()\n")
    assert facts.runtimes() == {name: each for name, each in whole.items() if name != "openvino"}


def test_what_a_vendor_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor(tmp_path, monkeypatch, "openvino", "print('{welcome}')\n__version__ = '9.9'\n")
    assert facts.runtimes()["openvino"] == "9.9"


@pytest.mark.parametrize(("hangs", "left"), [("openvino", {"ncnn": "1.2"}), ("", {})])
def test_one_that_hangs_is_not_waited_for_by_the_others(
    monkeypatch: pytest.MonkeyPatch, hangs: str, left: dict[str, str]
) -> None:
    """As on a cold memory card; nobody above catches what a timeout raises."""

    def run(command: list[str], **_: Any) -> Any:
        code, names = command[2], command[3:]
        if "available()" in code.split("print")[-1] or names == [hangs] or not hangs:
            raise subprocess.TimeoutExpired(command, 60)
        told = dict.fromkeys(names, "1.2") or {"openvino": "", "ncnn": ""}
        return subprocess.CompletedProcess(command, 0, f"\n{json.dumps(told)}\n", "")

    monkeypatch.setattr(facts.subprocess, "run", run)
    assert facts.runtimes() == left


def test_no_python_to_ask_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert facts.runtimes() == {}


# -- what that means for a build -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"runtimes": {}}, "environment"),
        ({"libraries": {}}, "environment"),
        ({"runtimes": {"tensorrt": "8.5.2"}}, "harm"),
        ({"sm": 53}, "harm"),
    ],
)
def test_what_the_board_lost_speaks_against_no_release(changes: dict[str, Any], cause: str) -> None:
    board = replace(boards.ORIN, **changes)
    build = boards.release(versions=">=10", on_device=OnDevice())
    verdict = misfit(build, board, "why")
    assert (verdict.code, verdict.cause, verdict.reason) == ("misfit", cause, "why")


def test_a_runtime_that_needs_no_cuda_is_not_asked_for_one() -> None:
    board = replace(boards.ORIN, libraries={}, arch="riscv64")
    assert misfit(boards.release(runtime="onnxruntime"), board, "why").cause == "harm"
