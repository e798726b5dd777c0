"""What may leave the disk, and whether something new may come: decisions without I/O.

One rule stands above the budget: what the active and the previous engine stand on is never
removed, whatever a board is asked to take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Literal

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file in the agent's keeping.

    Attributes:
        name: SHA-256 that it has, or will have.
        length: Bytes on the disk now.
        kind: A whole ``blob``, or a ``partial`` download.
    """

    name: str
    length: int
    kind: Literal["blob", "partial"] = "blob"


@dataclass(frozen=True, kw_only=True)
class Room:
    """What there is to put files in.

    Attributes:
        free: Bytes that the file system has left.
        reserve: Bytes of them that are not the agent's to take: frames, logs and the journal are
            written too.
        budget: Bytes that all of the agent's files may take; ``None`` is what the disk has.
    """

    free: int
    reserve: int
    budget: int | None = None


@dataclass(frozen=True)
class Plan:
    """A decision.

    Attributes:
        remove: Files to remove, in this order.
        short: Bytes that are wanting even so; 0 is: it fits.
    """

    remove: tuple[Stored, ...]
    short: int


def sweep(stored: Iterable[Stored], kept: Set[str]) -> tuple[Stored, ...]:
    """Returns what nobody needs.

    Args:
        stored: Everything there is.
        kept: Hashes that active, previous or the deployment at hand stand on.
    """
    return tuple(each for each in stored if each.name not in kept)


def plan(stored: Iterable[Stored], kept: Set[str], coming: Mapping[str, int], room: Room) -> Plan:
    """Says how room is made for a build.

    Nothing is removed for a build that will not fit anyway, and no more than it takes: what is
    left over may be what the board is sent back to next. Whole blobs go after broken-off
    downloads, large ones first.

    Args:
        stored: Everything there is.
        kept: Hashes that active and previous stand on.
        coming: Hash → length of every file of the build.
        room: What there is.
    """
    files = list(stored)
    whole = {each.name for each in files if each.kind == "blob"}
    begun = {each.name: each.length for each in files if each.kind == "partial"}
    missing = sum(
        max(0, length - begun.get(name, 0)) for name, length in coming.items() if name not in whole
    )
    over = missing - max(0, room.free - room.reserve)
    if room.budget is not None:
        over = max(over, sum(each.length for each in files) + missing - room.budget)
    needless = sweep(files, kept | coming.keys())
    short = over - sum(each.length for each in needless)
    if short > 0:
        return Plan((), short)
    removed: list[Stored] = []
    for each in sorted(needless, key=lambda one: (one.kind == "blob", -one.length)):
        if over <= 0:
            break
        removed.append(each)
        over -= each.length
    return Plan(tuple(removed), 0)
