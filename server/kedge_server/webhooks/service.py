"""What operators do with webhooks."""

from __future__ import annotations

import base64
import json
import secrets
import time

from sqlalchemy import delete
from sqlmodel import Session, col, func, select

from kedge_server.audit.service import record
from kedge_server.egress import parse
from kedge_server.errors import NotFoundError, RequestError
from kedge_server.webhooks import outbox
from kedge_server.webhooks.tables import DeliveryRow, WebhookRow
from kedge_shared.errors import InputError
from kedge_shared.events import (
    SECRET_PREFIX,
    TEST_KIND,
    DeliveryInfo,
    EventInfo,
    WebhookInfo,
    WebhookRequest,
)
from kedge_shared.ids import fresh_id

_MOST = 50
_SECRET_BYTES = 32


def add(session: Session, request: WebhookRequest, who: str) -> WebhookInfo:
    """Makes a webhook; its secret is in this answer and in no other.

    Raises:
        RequestError: The URL is none that may be called, or there are too many webhooks.
    """
    try:
        endpoint = parse(request.url)
    except InputError as error:
        raise RequestError(error.what, error.mend) from None
    if session.exec(select(func.count()).select_from(WebhookRow)).one() >= _MOST:
        raise RequestError(f"there are {_MOST} webhooks already", "`kedge webhook remove`")
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    hook = WebhookRow(
        id=fresh_id("wh"), url=request.url, kinds=json.dumps(request.kinds), secret=secret,
        created=time.time(),
    )  # fmt: skip
    session.add(hook)
    session.flush()
    # Not the whole URL: a receiver's own token may stand in it, and the log is read by more people.
    record(session, who, "webhook add", hook.id, f"{endpoint.host}, {', '.join(request.kinds)}")
    return _info(hook, 0, secret)


def every(session: Session) -> list[WebhookInfo]:
    """Returns every webhook, oldest first."""
    pending = dict(
        session.exec(
            select(DeliveryRow.webhook, func.count())
            .where(DeliveryRow.state == "pending")
            .group_by(DeliveryRow.webhook)
        ).all()
    )
    rows = session.exec(select(WebhookRow).order_by(col(WebhookRow.created)))
    return [_info(each, pending.get(each.id, 0)) for each in rows]


def remove(session: Session, hook: str, who: str) -> None:
    """Removes a webhook with its deliveries.

    Raises:
        NotFoundError: There is none.
    """
    row = _find(session, hook)
    session.execute(delete(DeliveryRow).where(col(DeliveryRow.webhook) == hook))
    session.delete(row)
    record(session, who, "webhook remove", hook)


def enable(session: Session, hook: str, who: str) -> WebhookInfo:
    """Takes a disabled webhook up again, with what waits for it."""
    row = _find(session, hook)
    row.enabled, row.failures, row.reason = True, 0, ""
    session.add(row)
    record(session, who, "webhook enable", hook)
    return _info(row, 0)


def test(session: Session, hook: str, who: str) -> DeliveryInfo:
    """Sends an event to one webhook that tells of nothing, to see whether it arrives.

    Raises:
        NotFoundError: There is none.
        RequestError: It is disabled.
    """
    row = _find(session, hook)
    if not row.enabled:
        raise RequestError(f"{hook} is disabled", f"`kedge webhook enable {hook}`")
    event = EventInfo(id=0, at=time.time(), kind=TEST_KIND, subject=hook, data={"who": who})
    record(session, who, "webhook test", hook)
    return _delivery(outbox.queue_for(session, row, event, event.at))


def deliveries(session: Session, hook: str, most: int) -> list[DeliveryInfo]:
    """Returns a webhook's deliveries, newest first."""
    _find(session, hook)
    query = select(DeliveryRow).where(DeliveryRow.webhook == hook)
    ordered = query.order_by(col(DeliveryRow.created).desc(), col(DeliveryRow.event).desc())
    return [_delivery(each) for each in session.exec(ordered.limit(most))]


def redeliver(session: Session, delivery: str, who: str) -> DeliveryInfo:
    """Sends a delivery again, whatever became of it, under the same id.

    Raises:
        NotFoundError: It is not in the log any more.
        RequestError: Its webhook is disabled.
    """
    row = session.get(DeliveryRow, delivery)
    if row is None:
        raise NotFoundError(f"there is no delivery {delivery}", "`kedge webhook deliveries`")
    if not _find(session, row.webhook).enabled:
        raise RequestError(f"{row.webhook} is disabled", f"`kedge webhook enable {row.webhook}`")
    row.state, row.due, row.attempts, row.finished = "pending", time.time(), 0, None
    session.add(row)
    record(session, who, "webhook redeliver", row.webhook, delivery)
    return _delivery(row)


def _find(session: Session, hook: str) -> WebhookRow:
    row = session.get(WebhookRow, hook)
    if row is None:
        raise NotFoundError(f"there is no webhook {hook}", "`kedge webhook list`")
    return row


def _info(row: WebhookRow, pending: int, secret: str = "") -> WebhookInfo:
    return WebhookInfo(
        id=row.id, url=row.url, kinds=outbox.kinds_of(row), created=row.created,
        enabled=row.enabled, failures=row.failures, pending=pending, reason=row.reason,
        secret=secret,
    )  # fmt: skip


def _delivery(row: DeliveryRow) -> DeliveryInfo:
    return DeliveryInfo(
        id=row.id, webhook=row.webhook, event=row.event, kind=row.kind,
        state=row.state, created=row.created, due=row.due, attempts=row.attempts,  # type: ignore[arg-type]
        status=row.status, reason=row.reason, finished=row.finished,
    )  # fmt: skip
