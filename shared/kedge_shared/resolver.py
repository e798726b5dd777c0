"""Does this build fit this board? Pure; the server asks before sending, the agent asks again."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kedge_shared.device_classes import RuntimeRange
from kedge_shared.manifest import Manifest, Requires
from kedge_shared.protocol import DeviceFacts

_BOUND = re.compile(r"^(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)$")


@dataclass(frozen=True)
class Fit:
    """The answer, with the sentence that explains it.

    Attributes:
        fits: Whether the board can load the build.
        reason: Why, or why not.
    """

    fits: bool
    reason: str


def resolve(manifest: Manifest, facts: DeviceFacts) -> Fit:
    """Says whether ``facts`` satisfy what the manifest requires."""
    return fit(manifest.runtime, manifest.requires, facts)


def fit(runtime: RuntimeRange, requires: Requires, facts: DeviceFacts) -> Fit:
    """Says whether a board has a runtime in its range and everything that is required."""
    version = facts.runtimes.get(runtime.name)
    if version is None:
        return Fit(False, f"runtime {runtime.name} is not on the board")
    if not in_range(version, runtime.range):
        return Fit(False, f"{runtime.name} {version} is outside {runtime.range}")
    missing = _missing(requires, facts)
    return Fit(not missing, missing or f"{runtime.name} {version} satisfies {runtime.range}")


def _missing(requires: Requires, facts: DeviceFacts) -> str:
    """Returns what the board lacks, or an empty string."""
    if requires.arch and facts.arch not in requires.arch:
        return f"board is {facts.arch}, build needs {' or '.join(requires.arch)}"
    if requires.sm is not None and facts.sm != requires.sm:
        return f"build is for SM {requires.sm}, board has {facts.sm or 'no GPU'}"
    flags = sorted(set(requires.cpu_flags) - set(facts.cpu_flags))
    if flags:
        return f"processor lacks {', '.join(flags)}"
    if requires.memory_mb is not None and facts.memory_mb < requires.memory_mb:
        return f"needs {requires.memory_mb:.0f} MiB, board has {facts.memory_mb:.0f}"
    return ""


def in_range(version: str, bounds: str) -> bool:
    """Says whether ``version`` satisfies comma-separated ``bounds``; malformed bounds never hold.

    Numeric components only are compared (``1.20.0rc1`` counts as ``1.20.0``): vendors' suffixes
    such as ``2026.4.1-…-releases`` carry no order.
    """
    have = _numbers(version)
    matches = [_BOUND.match(each.strip()) for each in bounds.split(",")]
    if not have or any(each is None for each in matches):
        return False
    return all(_holds(have, each[1], _numbers(each[2])) for each in matches if each)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version.strip())
    numbers = [int(each) for each in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers or [0]) if match else ()


def _holds(have: tuple[int, ...], operator: str, bound: tuple[int, ...]) -> bool:
    return {
        ">=": have >= bound,
        "<=": have <= bound,
        "==": have == bound,
        "!=": have != bound,
        ">": have > bound,
        "<": have < bound,
    }[operator]
