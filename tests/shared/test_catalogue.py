"""The catalogue of device classes: every number says where it comes from, and nothing else does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from kedge_shared.device_classes import DeviceClass, catalogue

#: What names or describes a class, and what its builder does with it: no figure of a board.
_WORDS = {"name", "title", "notes", "sources", "arch", "form", "gpu", "version_compatible"}
#: How a source begins that is no document: said to be a choice, or a thing that was done.
_OURS = ("chosen", "an engine of this form answered alike in", "compiled with")
_LINK = re.compile(r"https://[\w.-]+/\S+|https://[\w.-]+/")


def figures(each: DeviceClass) -> Iterator[str]:
    """Yields the dotted names of the figures that a class sets."""
    plain = {field.name: field.default for field in fields(DeviceClass)}
    for name in plain.keys() - _WORDS - {"runtime", "budgets", "drivers"}:
        value: Any = getattr(each, name)
        # What every class has by default is a figure all the same where it stands for hardware.
        if value not in (None, (), "", {}, False):
            yield name
    yield "runtime.range"
    yield from (f"drivers.{driver}" for driver in each.drivers)
    for budget in fields(type(each.budgets)):
        if getattr(each.budgets, budget.name) is not None:
            yield f"budgets.{budget.name}"


def source(each: DeviceClass, figure: str) -> str:
    return each.sources.get(figure) or each.sources.get(figure.partition(".")[0], "")


@pytest.mark.parametrize("name", catalogue())
def test_every_figure_has_a_source_and_every_source_a_figure(name: str) -> None:
    each = catalogue()[name]
    found = set(figures(each))
    assert [figure for figure in sorted(found) if not source(each, figure)] == []
    used = {figure for figure in found if figure in each.sources}
    used |= {figure.partition(".")[0] for figure in found if figure not in each.sources}
    assert set(each.sources) - used == set(), "sources of what the class does not say"


@pytest.mark.parametrize("name", catalogue())
def test_a_source_is_a_document_or_says_that_it_is_a_choice(name: str) -> None:
    for figure, told in catalogue()[name].sources.items():
        assert _LINK.search(told) or told.startswith(_OURS), (figure, told)


def test_a_figure_without_a_source_is_seen() -> None:
    """The two tests above can fail."""
    each = catalogue()["rk3588"]
    assert {"runtime.range", "drivers.rknpu", "input_size", "budgets.accuracy_drop"} <= set(
        figures(each)
    )
    assert source(each, "budgets.accuracy_drop") == each.sources["budgets"]
    assert source(each, "l4t") == ""


def test_the_classes_of_the_mission_are_there() -> None:
    assert set(catalogue()) == {
        "jetson-agx-orin", "jetson-nano", "jetson-orin-nano", "jetson-orin-nx", "jetson-xavier-nx",
        "rk3588", "rpi4", "rpi5", "rtx", "x86-onnxruntime", "x86-onnxruntime-vnni", "x86-openvino",
        "x86-openvino-gpu",
    }  # fmt: skip
