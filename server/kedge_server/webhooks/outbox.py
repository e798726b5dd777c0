"""The outbox: deliveries are queued with the event, and taken out when they arrived."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import CursorResult, bindparam, delete, update
from sqlmodel import Session, col, func, select

from kedge_server.database import exclusive
from kedge_server.webhooks.retry import Outcome
from kedge_server.webhooks.tables import DeliveryRow, WebhookRow
from kedge_shared import wire
from kedge_shared.events import EventInfo, matches
from kedge_shared.ids import fresh_id

#: Of one webhook; beyond, the oldest are dropped: who was away for so long asks the API.
_MOST_PENDING = 10_000
_LOG_SECONDS = 7 * 86400.0

#: Made once: it is asked every two seconds.
_DUE = (
    select(DeliveryRow, WebhookRow)
    .where(DeliveryRow.webhook == WebhookRow.id)
    .where(DeliveryRow.state == "pending", col(WebhookRow.enabled))
    .where(col(DeliveryRow.due) <= bindparam("now"))
    .order_by(col(DeliveryRow.due), col(DeliveryRow.event))
    .limit(bindparam("most"))
)


def queue(session: Session, events: Sequence[EventInfo], now: float) -> None:
    """Queues events for every webhook that wants them."""
    for hook in session.exec(select(WebhookRow).where(col(WebhookRow.enabled))).all():
        wanted = kinds_of(hook)
        for each in events:
            if matches(each.kind, wanted):
                queue_for(session, hook, each, now)


def queue_for(session: Session, hook: WebhookRow, event: EventInfo, now: float) -> DeliveryRow:
    """Queues an event for one webhook, whether it wants it or not."""
    row = DeliveryRow(
        id=fresh_id("dl"), webhook=hook.id, event=event.id, kind=event.kind,
        body=_body(event), created=now, due=now,
    )  # fmt: skip
    session.add(row)
    return row


def kinds_of(hook: WebhookRow) -> tuple[str, ...]:
    """Returns which events a webhook wants."""
    return tuple(json.loads(hook.kinds))


def due(session: Session, now: float, most: int) -> Sequence[tuple[DeliveryRow, WebhookRow]]:
    """Returns deliveries whose time has come, with whom they are for."""
    found = session.execute(_DUE, {"now": now, "most": most})
    return [(delivery, hook) for delivery, hook in found]


def claim(session: Session, delivery: DeliveryRow, until: float) -> bool:
    """Takes a delivery on: of several servers one does, and another if that one dies.

    Returns:
        Whether it was taken.
    """
    done: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(DeliveryRow)
        .where(
            col(DeliveryRow.id) == delivery.id, col(DeliveryRow.state) == "pending",
            col(DeliveryRow.due) == delivery.due,
        )
        .values(due=until, attempts=DeliveryRow.attempts + 1)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    return done.rowcount == 1


def settle(session: Session, delivery: str, outcome: Outcome, limit: int, now: float) -> None:
    """Writes what became of an attempt; a webhook that takes nothing any more is disabled."""
    # Several end at once, and each counts on from what the one before has written.
    exclusive(session, "webhooks")
    row = session.get(DeliveryRow, delivery)
    hook = session.get(WebhookRow, row.webhook) if row else None
    if row is None or hook is None:
        return  # the webhook was removed meanwhile
    row.state, row.status, row.reason = outcome.state, outcome.status, outcome.reason
    row.due = outcome.due
    if outcome.state == "delivered":
        hook.failures = 0
    if outcome.state != "pending":
        row.finished = now
    if outcome.state == "given_up":
        hook.failures += 1
        if outcome.gone or hook.failures >= limit:
            hook.enabled = False
            hook.reason = f"{hook.failures} deliveries given up, the last: {outcome.reason}"
    session.add(row)
    session.add(hook)


def trim(session: Session, now: float) -> None:
    """Forgets deliveries that ended a week ago, and drops what waits beyond the limit."""
    session.execute(
        delete(DeliveryRow).where(
            col(DeliveryRow.state) != "pending", col(DeliveryRow.finished) < now - _LOG_SECONDS
        )
    )
    counts = session.exec(
        select(DeliveryRow.webhook, func.count())
        .where(DeliveryRow.state == "pending")
        .group_by(DeliveryRow.webhook)
        .having(func.count() > _MOST_PENDING)
    ).all()
    for hook, count in counts:
        oldest = (
            select(DeliveryRow.id)
            .where(DeliveryRow.webhook == hook, DeliveryRow.state == "pending")
            .order_by(col(DeliveryRow.event))
            .limit(count - _MOST_PENDING)
        )
        session.execute(
            update(DeliveryRow)
            .where(col(DeliveryRow.id).in_(oldest))
            .values(state="dropped", reason="too many are waiting", finished=now)
        )


def _body(event: EventInfo) -> str:
    """Returns the payload: type, timestamp and data, as the specification proposes."""
    at = datetime.fromtimestamp(event.at, timezone.utc).isoformat()
    data = {"id": event.id, "subject": event.subject, **event.data}
    return wire.encode({"type": event.kind, "timestamp": at, "data": data}).decode()
