"""The table of attacks in docs/security.md is a list of tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
ATTACKS = (
    "arbitrary software", "rollback", "freeze", "mix-and-match", "wrong device", "wrong class",
    "endless data", "slow retrieval", "partial bundle",
    *(f"key compromise: {role}" for role in (
        "root", "targets", "delegation", "snapshot", "timestamp", "director", "device", "operator",
    )),
)  # fmt: skip


def rows() -> list[tuple[str, list[str]]]:
    text = (HOME / "docs" / "security.md").read_text()
    table = text.split("| attack |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [line.strip("|").split("|") for line in table]
    return [(each[0].strip(), re.findall(r"`([^`]+)`", each[3])) for each in cells]


def test_every_attack_has_a_row() -> None:
    assert {attack for attack, _ in rows()} >= set(ATTACKS)


@pytest.mark.parametrize(("attack", "tests"), rows())
def test_every_row_names_tests_that_exist(attack: str, tests: list[str]) -> None:
    assert tests, f"{attack} names no test"
    for each in tests:
        file, _, name = each.partition("::")
        assert f"def {name}(" in (HOME / file).read_text(), each


def test_every_test_that_the_page_names_exists() -> None:
    text = (HOME / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[^`:]+)::([^`]+)`", text)
    assert len(named) > len(ATTACKS)
    for file, name in named:
        assert f"def {name}(" in (HOME / file).read_text(), f"{file}::{name}"
