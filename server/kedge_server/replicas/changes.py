"""What has changed, told to every server over the same database, in the order of commits.

A change is noted where it is made and written at the end of its transaction, so that it is there
exactly if what it tells of is. Writers wait for one another from then to the commit: ids are in the
order of commits, and a reader who has seen one has missed none before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from sqlalchemy import Row, bindparam, delete, func, insert, select
from sqlmodel import Session, col

from kedge_server.database import at_commit, exclusive
from kedge_server.replicas.tables import ChangeRow

#: ``device``: its token or facts. ``rollout``: what its devices shall run. ``metadata``: the
#: image repository's.
Kind = Literal["device", "rollout", "metadata"]

#: Changes that are kept: a server that fell further behind forgets everything it knows.
KEPT = 10_000

#: Made once: it is asked every second.
_SINCE = (
    select(col(ChangeRow.id), col(ChangeRow.kind), col(ChangeRow.subject))
    .where(col(ChangeRow.id) > bindparam("last"))
    .order_by(col(ChangeRow.id))
)


@dataclass(frozen=True)
class Changes:
    """What a server has not heard of yet.

    Attributes:
        upto: Newest change.
        known: What changed; ``None`` where some of it is not kept any more.
    """

    upto: int
    known: tuple[tuple[Kind, str], ...] | None


def note(session: Session, kind: Kind, subject: str = "") -> None:
    """Tells every server of a change, if this transaction is committed."""
    noted: dict[tuple[Kind, str], None] = session.info.setdefault("changes", {})
    if not noted:
        at_commit(session, _write)
    noted[kind, subject] = None


def noted(session: Session) -> bool:
    """Says whether this transaction changes anything."""
    return bool(session.info.get("changes"))


def _write(session: Session) -> None:
    noted = session.info.pop("changes")
    exclusive(session, "changes")
    session.execute(
        insert(ChangeRow), [{"kind": kind, "subject": subject} for kind, subject in noted]
    )


def newest(session: Session) -> int:
    """Returns the newest change; 0 before the first."""
    return int(session.execute(select(func.max(col(ChangeRow.id)))).scalar_one() or 0)


def since(session: Session, last: int) -> Changes:
    """Returns what has changed since ``last``."""
    rows: Sequence[Row[int, str, str]] = session.execute(_SINCE, {"last": last}).all()
    if not rows:
        return Changes(last, ())
    upto = rows[-1][0]
    # An id may be left out where a transaction was rolled back; more than are kept never are.
    if upto - last > KEPT:
        return Changes(upto, None)
    return Changes(upto, tuple((cast("Kind", kind), subject) for _, kind, subject in rows))


def forget_old(session: Session) -> None:
    """Removes changes beyond those that are kept."""
    session.execute(delete(ChangeRow).where(col(ChangeRow.id) <= newest(session) - KEPT))
