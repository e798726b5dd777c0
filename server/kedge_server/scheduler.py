"""What happens by itself.

Of several servers over one database one leads, and it alone looks at gates and renews metadata;
each hears of what others changed, and writes whom it has seen.

What a job raises is the scheduler's (APScheduler) to catch: it logs it, counts it as an error for
``/metrics``, and calls the job again at its next turn. A job that caught it itself would be counted
as done.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from datetime import datetime, timezone

from apscheduler.schedulers.background import BackgroundScheduler

from kedge_server.accounts.logins import forget_old
from kedge_server.audit.service import record
from kedge_server.context import Context
from kedge_server.database import now, transaction
from kedge_server.devices import intake
from kedge_server.devices.keys import forget_nonces
from kedge_server.devices.service import write_seen
from kedge_server.events import kinds
from kedge_server.events.service import emit
from kedge_server.replicas import changes
from kedge_server.rollouts import progress
from kedge_server.telemetry import jobs as telemetry
from kedge_server.webhooks import delivery as webhooks

_log = logging.getLogger("kedge.scheduler")
_RENEW_SECONDS, _PRUNE_SECONDS = 60, 3600
_ROLL_UP_SECONDS, _DELIVER_SECONDS, _TRIM_SECONDS = 60, 2, 600
#: Renewed so often in its life that a slow database does not cost it.
_LEASE_SHARE = 1 / 3
#: Whom it has seen is written so many at a time, because reports wait for each transaction, and
#: over half of the interval: in one go a second of Python's time would be taken from polls.
_SEEN_AT_ONCE, _SEEN_SHARE = 500, 0.5
_DAY = 86400


class TickError(Exception):
    """Some rollouts could not be looked at."""


def start(context: Context) -> BackgroundScheduler:
    """Starts the scheduler; :func:`stop` ends it."""
    settings = context.settings
    every: dict[Callable[[Context], None], float] = {
        lead: settings.lease_seconds * _LEASE_SHARE, tick: settings.tick_seconds,
        follow: settings.change_seconds, seen: settings.seen_seconds, renew: _RENEW_SECONDS,
        prune: _PRUNE_SECONDS, telemetry.roll_up: _ROLL_UP_SECONDS,
        webhooks.deliver: _DELIVER_SECONDS, webhooks.trim: _TRIM_SECONDS,
    }  # fmt: skip
    scheduler = BackgroundScheduler(timezone=timezone.utc)
    for job, seconds in every.items():
        scheduler.add_job(
            job, "interval", args=[context], seconds=seconds, max_instances=1, coalesce=True,
            misfire_grace_time=None,
        )  # fmt: skip
    try:
        lead(context)
    # Boundary: the server starts all the same, and tries again at the job's next turn.
    except Exception:  # noqa: BLE001
        _log.exception("the lease could not be taken")
    scheduler.start()
    return scheduler


def stop(context: Context, scheduler: BackgroundScheduler) -> None:
    """Ends the scheduler, writes whom the server has seen and lets another one lead."""
    context.stopping.set()
    scheduler.shutdown(wait=True)
    try:
        seen(context)
        with transaction(context.engine) as session:
            context.lease.give_up(session)
    # Boundary: the server ends, whatever the database says; the lease runs out by itself.
    except Exception:  # noqa: BLE001
        _log.warning("whom it has seen could not be written, nor the lease given up")


def lead(context: Context) -> None:
    """Takes the lease if nobody has it, or renews it."""
    try:
        with transaction(context.engine) as session:
            fresh = context.lease.take(session)
            if fresh:
                context.repository.take_up(session)
    except BaseException:
        context.lease.lose()
        raise
    if fresh:
        _log.warning("%s leads", context.lease.holder)


def tick(context: Context) -> None:
    """Looks at every rollout that is due, if this server leads.

    Each in a transaction of its own: one that cannot be judged keeps no other from its gate.

    Raises:
        TickError: Some could not be looked at; the others were.
    """
    with transaction(context.engine) as session:
        if not context.lease.holds(session):
            return
        names = progress.open_rollouts(session)
    context.pace.forget_others(set(names))
    changed, wrong = False, []
    for name in filter(context.pace.is_due, names):
        try:
            changed = _look(context, name) or changed
        # Boundary: between rollouts; told below.
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{name}: {error}")
            _log.exception("rollout %s could not be looked at", name)
    if changed:
        context.follower.follow()
    if wrong:
        raise TickError(f"{len(wrong)} of {len(names)} rollouts, {wrong[0]}")


def _look(context: Context, rollout: str) -> bool:
    """Looks at a rollout; says whether anything changed."""
    with context.pace.looking(rollout), transaction(context.engine) as session:
        # Asked anew: another server may have taken the lease over during the look before.
        return context.lease.holds(session) and progress.look(session, rollout, now(session))


def follow(context: Context) -> None:
    """Hears of what other servers changed."""
    context.follower.follow()


def seen(context: Context) -> None:
    """Writes when devices were last seen; what cannot be written is kept for the next time."""
    found = context.index.take_seen()
    batches = -(-len(found) // _SEEN_AT_ONCE)
    pause = _SEEN_SHARE * context.settings.seen_seconds / max(1, batches)
    left = iter(found.items())
    for at in range(batches):
        some = dict(itertools.islice(left, _SEEN_AT_ONCE))
        try:
            with transaction(context.engine) as session:
                write_seen(session, some)
        except BaseException:
            context.index.put_back_seen({**some, **dict(left)})
            raise
        if at + 1 < batches:
            context.stopping.wait(pause)


def prune(context: Context) -> None:
    """Removes what nobody asks for any more, if this server leads."""
    with transaction(context.engine) as session:
        if context.lease.holds(session):
            changes.forget_old(session)
            at = now(session)
            intake.prune(session, at - context.settings.report_days * _DAY)
            forget_nonces(session, at)
            forget_old(session, at)


def renew(context: Context) -> None:
    """Signs snapshot and timestamp before they expire, if this server leads."""
    try:
        with transaction(context.engine) as session:
            if not context.lease.holds(session):
                return
            context.repository.renew(session, datetime.now(timezone.utc))
    except Exception as error:
        _alarm(context, f"metadata could not be renewed: {error}")
        raise
    _alarm(context, "")


def _alarm(context: Context, alarm: str) -> None:
    """Raises or ends the alarm that /healthz shows; the audit log keeps when it began."""
    began, context.repository.alarm = alarm and not context.repository.alarm, alarm
    if not began:
        return
    try:
        with transaction(context.engine) as session:
            record(session, "scheduler", "alarm", "metadata", alarm)
            emit(session, kinds.SERVER_ALARM, "metadata", {"reason": alarm}, now(session))
    # Boundary: the disk that keeps metadata from being renewed keeps this from being written.
    except Exception:  # noqa: BLE001
        _log.exception("the alarm could not be written")
