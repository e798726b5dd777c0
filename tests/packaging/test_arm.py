"""Arm: the agent's dependencies come as wheels, and emulated boards are those of the catalogue."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kedge_shared.device_classes import find_class

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def arm_wheels() -> Any:
    pytest.importorskip("tomllib", reason="the script needs tomllib or tomli")
    return load("arm_wheels")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_what_is_asked_for_is_what_the_project_declares(arm_wheels: Any) -> None:
    wanted = arm_wheels.wanted("agent")
    names = {each.split(">")[0].split("[")[0] for each in wanted}
    assert {"cryptography", "msgspec", "numpy", "tuf", "httpx"} <= names
    assert not names & {"torch", "ultralytics-opencv-headless", "onnx", "fastapi"}


@pytest.mark.network
@pytest.mark.skipif(not os.environ.get("KEDGE_ONLINE"), reason="KEDGE_ONLINE is not set")
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_agent_has_wheels_for_arm(arm_wheels: Any, python: str) -> None:
    answer = arm_wheels.ask(python, "agent")
    assert answer.resolves, answer.why


@pytest.mark.network
@pytest.mark.skipif(not os.environ.get("KEDGE_ONLINE"), reason="KEDGE_ONLINE is not set")
def test_a_distribution_without_wheels_is_told(arm_wheels: Any) -> None:
    answer = arm_wheels.ask("3.11", "agent", platforms=("manylinux_2_99_sparc",))
    assert not answer.resolves
    assert "ERROR" in answer.why


def test_emulated_boards_are_what_their_classes_ask_for() -> None:
    boards = load("arm_board").BOARDS
    assert set(boards) == {"rpi4", "rpi5", "rk3588"}
    for name, board in boards.items():
        vendor, _, soc = board.compatible[-1].partition(",")
        assert vendor
        assert soc in (find_class(name).soc or ()), name
