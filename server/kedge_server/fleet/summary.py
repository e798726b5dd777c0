"""Counts a fleet. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from kedge_shared.fleet import ClassHealth

_LATELY_SECONDS, _DAY_SECONDS = 300, 86400


class Board(Protocol):
    """What is asked about a board."""

    device_class: Any
    phase: Any
    release: Any
    last_seen: Any
    serves: Any
    revoked: Any
    suspected_clone: Any


@dataclass
class _Counts:
    seen_5m: int = 0
    seen_1d: int = 0
    clones: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    releases: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Counted:
    """A fleet in numbers.

    Attributes:
        classes: By name.
        revoked: Boards that are refused.
        measuring: Boards that only measure.
    """

    classes: tuple[ClassHealth, ...]
    revoked: int
    measuring: int


def count(boards: Iterable[Board], now: float) -> Counted:
    """Counts boards by class; those that are refused or only measure are told apart."""
    counts: defaultdict[str, _Counts] = defaultdict(_Counts)
    revoked = measuring = 0
    for each in boards:
        if each.revoked is not None:
            revoked += 1
        elif not each.serves:
            measuring += 1
        else:
            _add(counts[each.device_class], each, now)
    classes = tuple(_health(name, counts[name]) for name in sorted(counts))
    return Counted(classes, revoked, measuring)


def _add(counts: _Counts, board: Board, now: float) -> None:
    silent = float("inf") if board.last_seen is None else now - board.last_seen
    counts.seen_5m += silent <= _LATELY_SECONDS
    counts.seen_1d += silent <= _DAY_SECONDS
    counts.clones += board.suspected_clone is not None
    counts.phases[board.phase] += 1
    counts.releases[board.release] += 1


def _health(name: str, counts: _Counts) -> ClassHealth:
    return ClassHealth(
        device_class=name, devices=sum(counts.phases.values()), seen_5m=counts.seen_5m,
        seen_1d=counts.seen_1d, phases=dict(counts.phases), releases=dict(counts.releases),
        suspected_clones=counts.clones,
    )  # fmt: skip
