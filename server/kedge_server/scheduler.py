"""What happens by itself: gates are looked at, metadata renewed, last-seen times written."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timezone

from apscheduler.schedulers.background import BackgroundScheduler

from kedge_server.audit.service import record
from kedge_server.context import Context
from kedge_server.database import transaction
from kedge_server.devices.service import flush_seen
from kedge_server.events import kinds
from kedge_server.events.service import emit
from kedge_server.rollouts import progress
from kedge_server.telemetry import jobs as telemetry
from kedge_server.webhooks import delivery as webhooks

_log = logging.getLogger("kedge.scheduler")
_RENEW_SECONDS = 60
_ROLL_UP_SECONDS, _DELIVER_SECONDS, _TRIM_SECONDS = 60, 2, 600


def start(context: Context) -> BackgroundScheduler:
    """Starts the scheduler; it is shut down by the app."""
    scheduler = BackgroundScheduler(timezone=timezone.utc)
    options = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
    scheduler.add_job(
        tick, "interval", args=[context], seconds=context.settings.tick_seconds, **options
    )
    scheduler.add_job(renew, "interval", args=[context], seconds=_RENEW_SECONDS, **options)
    more = ((telemetry.roll_up, _ROLL_UP_SECONDS), (webhooks.deliver, _DELIVER_SECONDS),
            (webhooks.trim, _TRIM_SECONDS))  # fmt: skip
    for job, seconds in more:
        scheduler.add_job(job, "interval", args=[context], seconds=seconds, **options)
    scheduler.start()
    return scheduler


def tick(context: Context) -> None:
    """Looks at every gate and writes last-seen times."""
    try:
        with transaction(context.engine) as session:
            changed = progress.tick(session, time.time())
            flush_seen(session, context.index.take_seen())
    # Boundary: the scheduler must come back at the next tick whatever happened in this one.
    except Exception:  # noqa: BLE001
        _log.exception("tick failed")
        return
    if changed:
        context.index.forget_all()


def renew(context: Context) -> None:
    """Signs snapshot and timestamp before they expire."""
    try:
        with transaction(context.engine) as session:
            renewed = context.repository.renew(session, datetime.now(timezone.utc))
    # Boundary: as in tick.
    except Exception as error:  # noqa: BLE001
        _log.exception("metadata could not be renewed: devices will refuse it when it expires")
        _alarm(context, f"metadata could not be renewed: {error}")
        return
    _alarm(context, "")
    if renewed:
        context.index.forget_all()


def _alarm(context: Context, alarm: str) -> None:
    """Raises or ends the alarm that /healthz shows; the audit log keeps when it began."""
    began, context.repository.alarm = alarm and not context.repository.alarm, alarm
    if not began:
        return
    try:
        with transaction(context.engine) as session:
            record(session, "scheduler", "alarm", "metadata", alarm)
            emit(session, kinds.SERVER_ALARM, "metadata", {"reason": alarm}, time.time())
    # Boundary: the disk that keeps metadata from being renewed keeps this from being written.
    except Exception:  # noqa: BLE001
        _log.exception("the alarm could not be written")
