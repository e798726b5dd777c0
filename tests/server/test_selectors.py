"""Selectors: what hawkBit's users write, said back the same, and faults with their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_server.devices.selectors import (
    Both,
    Constraint,
    Selector,
    SelectorError,
    matches,
    parse,
    write,
)

BOARD = {
    "name": "cam-1", "class": "jetson-orin-nx", "arch": "aarch64", "memory_mb": 7_620.0,
    "sm": 87.0, "cpu_flags": ("asimd", "fp16"), "runtime.tensorrt": "10.3.0",
    "tag.site": "north wing", "tag.tier": "2", "release": "1.0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class==jetson-orin-nx", True),
        ("class==jetson-*", True),
        ("class==*-rk3588", False),
        ("class!=jetson-*", False),
        ("memory_mb=ge=4096;sm==87", True),
        ("memory_mb>=4096 and sm == 87", True),
        ("memory_mb<4096,sm=gt=80", True),
        ("memory_mb<4096 or sm>87", False),
        ("name=in=(cam-2, cam-1)", True),
        ("name=out=(cam-2,cam-1)", False),
        ('tag.site=="north wing"', True),
        ("tag.site=='north wing';tag.tier==2", True),
        ("tag.none==x", False),
        ("tag.none!=x", True),
        ("tag.none<2", False),
        ("cpu_flags==fp16", True),
        ("cpu_flags!=fp16", False),
        ("runtime.tensorrt<10.10", True),
        ("runtime.tensorrt=le=10.3", True),
        ("runtime.tensorrt>10.3", False),
        # ; binds closer than ,
        ("arch==x86_64;sm==1,name==cam-1", True),
        ("arch==x86_64;(sm==1,name==cam-1)", False),
        ("tag.tier>10", False),
        ("name==cam-?", False),
    ],
)
def test_what_is_selected(text: str, expected: bool) -> None:
    assert matches(parse(text), BOARD) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("", 0, "its end: expected the name of a field"),
        ("arch=x86", 4, "expected an operator"),
        ("arch=like=x86", 4, "expected an operator"),
        ("speed==3", 0, "no such field; there are name, class"),
        ("tag.==3", 0, "no such field"),
        ("arch==", 6, "expected a value"),
        ("arch==x;", 8, "expected the name of a field"),
        ("arch==x86 sm==1", 10, "expected ';'"),
        ("(arch==x86", 10, "expected ')'"),
        ("name=in=cam", 8, "expected '('"),
        ("name=in=(cam", 12, "expected ',' or ')'"),
        ('arch=="x86', 6, "not closed"),
        ("arch==x86)", 9, "expected ';'"),
        ("(" * 60 + "arch==x", 51, "nested deeper"),
    ],
)
def test_faults_name_their_place(text: str, at: int, said: str) -> None:
    with pytest.raises(SelectorError) as refused:
        parse(text)
    assert refused.value.at == at
    assert said in str(refused.value)
    assert f"position {at + 1}" in str(refused.value)


VALUES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8)
CONSTRAINTS = st.builds(
    Constraint, st.sampled_from(["name", "arch", "tag.site", "runtime.x"]),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), st.tuples(VALUES),
) | st.builds(
    Constraint, st.just("name"), st.sampled_from(["=in=", "=out="]),
    st.lists(VALUES, min_size=1, max_size=3).map(tuple),
)  # fmt: skip
SELECTORS: st.SearchStrategy[Selector] = st.recursive(
    CONSTRAINTS,
    lambda inner: st.builds(
        Both, st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3).map(tuple)
    ),
    max_leaves=8,
)


@given(SELECTORS)
def test_what_is_written_is_read_back_the_same(selector: Selector) -> None:
    assert parse(write(selector)) == selector


@given(st.text(max_size=30) | st.text("arch=;,()'\" <>!in*", max_size=30))
def test_anything_is_read_or_refused_with_a_place(text: str) -> None:
    try:
        parse(text)
    except SelectorError as error:
        assert 0 <= error.at <= len(text)
