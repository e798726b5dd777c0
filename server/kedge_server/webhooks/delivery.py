"""Sends what is due: a job of the scheduler."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

from kedge_server.context import Context
from kedge_server.database import transaction
from kedge_server.events import service as events
from kedge_server.outbound import post
from kedge_server.rollouts import slots
from kedge_server.webhooks import outbox
from kedge_server.webhooks.retry import Outcome, judge
from kedge_server.webhooks.tables import DeliveryRow, WebhookRow
from kedge_shared.errors import InputError, KedgeError
from kedge_shared.events import HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, sign

#: Of one run; a receiver that is slow must not keep the others waiting.
_AT_ONCE, _BATCH = 8, 64
#: Longer than a call can take: then whoever claimed it has died.
_CLAIM_SECONDS = 60.0


def deliver(context: Context) -> None:
    """Sends every delivery that is due, each once."""
    now = time.time()
    with transaction(context.engine) as session:
        found = outbox.due(session, now, _BATCH)
        mine = [each for each in found
                if outbox.claim(session, each[0], now + _CLAIM_SECONDS)]  # fmt: skip
    if mine:
        # Claims are on the disk before anything is sent.
        with ThreadPoolExecutor(_AT_ONCE, "webhook") as pool:
            list(pool.map(lambda each: _attempt(context, *each), mine))


def trim(context: Context) -> None:
    """Forgets old events and deliveries."""
    with transaction(context.engine) as session:
        events.trim(session, context.settings.event_rows)
        outbox.trim(session, time.time())
        slots.trim(session, time.time())


def _attempt(context: Context, delivery: DeliveryRow, hook: WebhookRow) -> None:
    settings = context.settings
    status, reason, attempts = None, "", delivery.attempts + 1
    most = settings.webhook_attempts
    try:
        status = call(context, delivery, hook)
    except InputError as error:
        # Whoever named it must change it: trying again would only hide that.
        reason, most = error.what, attempts
    except KedgeError as error:
        reason = error.what
    now = time.time()
    share = random.random()  # noqa: S311 - spreads attempts, guards nothing
    outcome: Outcome = judge(status, reason, attempts, most, now, share)
    with transaction(context.engine) as session:
        outbox.settle(session, delivery.id, outcome, settings.webhook_failures, now)


def call(context: Context, delivery: DeliveryRow, hook: WebhookRow) -> int:
    """Sends a delivery, signed; returns the status of the answer."""
    body, timestamp = delivery.body.encode(), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "kedge-webhooks",
        HEADER_ID: delivery.id,
        HEADER_TIMESTAMP: str(timestamp),
        HEADER_SIGNATURE: sign(hook.secret, delivery.id, timestamp, body),
    }
    return post(hook.url, body, headers, context.settings.egress_networks)
