"""The audit log's chain: each entry holds the hash of the one before it. Pure.

It shows that an entry was changed, taken out or put in between. That the newest were cut off shows
only beside a head that was written down elsewhere (``kedge audit verify --head``); and who can
write the database can write a whole new chain, which is why heads belong elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

FIRST = "0" * 64


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One thing that happened.

    Attributes:
        id: Counts up.
        at: Unix seconds.
        actor: Who did it: a user, ``USER/TOKEN``, a board, or a part of the server.
        action: What.
        subject: To what.
        detail: More of it.
        previous: Hash of the entry before.
        hash: Of this one.
    """

    id: int
    at: float
    actor: str
    action: str
    subject: str
    detail: str
    previous: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What came out of following the chain.

    Attributes:
        entries: How many hold.
        last_id: The last that holds; 0 for none.
        last_hash: Its hash.
        broken_id: The first that does not hold, or ``None``.
        why: What is wrong with it.
        head: Whether the head that was asked for stands; ``None`` when none was.
    """

    entries: int
    last_id: int
    last_hash: str
    broken_id: int | None
    why: str
    head: bool | None


def chain(previous: str, at: float, actor: str, action: str, subject: str, detail: str) -> str:
    """Returns an entry's hash: over the one before it and everything it says."""
    said = json.dumps([previous, at, actor, action, subject, detail])
    return hashlib.sha256(said.encode()).hexdigest()


def verify(entries: Iterable[AuditEntry], head: tuple[int, str] | None = None) -> Verified:
    """Follows the chain from its first entry.

    Args:
        entries: Oldest first.
        head: Id and hash (or its beginning) of an entry that must be among them.
    """
    count, last, previous = 0, 0, FIRST
    found = None if head is None else False
    broken, why = None, ""
    for each in entries:
        why = _fault(each, last, previous)
        if why:
            broken = each.id
            break
        count, last, previous = count + 1, each.id, each.hash
        if head is not None and each.id == head[0]:
            found = each.hash.startswith(head[1])
    return Verified(
        entries=count, last_id=last, last_hash=previous if count else "", broken_id=broken,
        why=why, head=found,
    )  # fmt: skip


def broken_at(entries: Iterable[AuditEntry]) -> int | None:
    """Returns the first entry that does not hold, or ``None``."""
    return verify(entries).broken_id


def _fault(entry: AuditEntry, last: int, previous: str) -> str:
    if entry.id <= last:
        return f"it stands after {last}"
    if entry.previous != previous:
        return "it does not follow the entry before it"
    wanted = chain(previous, entry.at, entry.actor, entry.action, entry.subject, entry.detail)
    return "" if entry.hash == wanted else "it was altered"
