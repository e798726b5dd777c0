"""Versions as vendors write them: compared by their numbers. Pure."""

from __future__ import annotations

import re

_BOUND = re.compile(r"^(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)$")
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
#: Fewer do not name a release of TensorRT or RKNN: 10.3 may be 10.3.0 or 10.3.1.
_RELEASE_NUMBERS = 3


def in_range(version: str, bounds: str) -> bool:
    """Says whether ``version`` satisfies comma-separated ``bounds``; malformed bounds never hold.

    Numeric components only are compared (``1.20.0rc1`` counts as ``1.20.0``): vendors' suffixes
    such as ``2026.4.1-…-releases`` carry no order.
    """
    have = _ordered(version)
    matches = [_BOUND.match(each.strip()) for each in bounds.split(",")]
    if not have or any(each is None for each in matches):
        return False
    return all(_holds(have, each[1], _ordered(each[2])) for each in matches if each)


def numbers(version: str) -> tuple[int, ...]:
    """Returns the numeric components a version begins with; empty where there are none."""
    match = _NUMBERS.match(version.strip())
    return tuple(int(each) for each in match[0].split(".")) if match else ()


def same_release(one: str, other: str) -> bool:
    """Says whether two versions name one release.

    A library on a disk tells three numbers, a Python package often four: what both tell must be
    equal, and both must tell three at least.
    """
    left, right = numbers(one), numbers(other)
    told = min(len(left), len(right))
    return told >= _RELEASE_NUMBERS and left[:told] == right[:told]


def major(version: str) -> int | None:
    """Returns the first number, or ``None``."""
    return next(iter(numbers(version)), None)


def _ordered(version: str) -> tuple[int, ...]:
    found = list(numbers(version))
    while len(found) > 1 and found[-1] == 0:
        found.pop()
    return tuple(found)


def _holds(have: tuple[int, ...], operator: str, bound: tuple[int, ...]) -> bool:
    return {
        ">=": have >= bound,
        "<=": have <= bound,
        "==": have == bound,
        "!=": have != bound,
        ">": have > bound,
        "<": have < bound,
    }[operator]
