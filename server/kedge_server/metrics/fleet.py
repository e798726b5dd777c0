"""What the database says of the fleet, read when Prometheus asks, not more often than needed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func
from sqlmodel import Session, col, select

from kedge_server.context import Context
from kedge_server.database import transaction
from kedge_server.devices.tables import DeviceRow
from kedge_server.fleet.counting import STANDING
from kedge_server.operation.expiry import expiries
from kedge_server.rollouts.tables import RolloutRow
from kedge_server.settings import ServerSettings
from kedge_server.telemetry import service as telemetry
from kedge_server.webhooks.tables import DeliveryRow
from kedge_shared.phases import Phase

#: Read anew no more often; several scrapers cost no more than one.
_KEPT_SECONDS = 5.0
#: Values of a label that a fleet's owner chooses; beyond, the rarest are told together.
_MOST_CLASSES = 50
_MOST_ROLES = 50
_MOST_PAIRS = 100
_OTHER = "other"
_STATES = ("running", "paused", "completed", "halted", "stopped")
_SEEN = {"5m": 300, "1h": 3600, "1d": 86400}
_HOUR = 3600


class Fleet(Collector):
    """Rollouts, devices, metadata and what boards measured.

    Args:
        context: The server.
    """

    def __init__(self, context: Context) -> None:
        self._context, self._lock = context, threading.Lock()
        self._read_at, self._kept = 0.0, list[Metric]()

    def describe(self) -> Iterable[Metric]:
        """Says nothing beforehand: registering must not read the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Returns what is known, some seconds old at the most."""
        with self._lock:
            if time.monotonic() - self._read_at > _KEPT_SECONDS or not self._kept:
                with transaction(self._context.engine) as session:
                    self._kept = list(_read(session, self._context.settings, time.time()))
                self._read_at = time.monotonic()
            yield from self._kept
        alarm = GaugeMetricFamily("kedge_alarm", "1 while a person must see to something.")
        alarm.add_metric((), float(bool(self._context.repository.alarm)))
        yield alarm


def _read(session: Session, settings: ServerSettings, now: float) -> Iterator[Metric]:
    yield _rollouts(session)
    yield from _devices(session, now)
    yield from _metadata(session, settings, now)
    yield from _measured(session, now)
    yield _deliveries(session)


def _rollouts(session: Session) -> Metric:
    rows = session.exec(select(RolloutRow.state, func.count()).group_by(RolloutRow.state))
    counts = dict.fromkeys(_STATES, 0) | dict(list(rows))
    found = GaugeMetricFamily("kedge_rollouts", "Rollouts by state.", labels=("state",))
    for state, count in counts.items():
        found.add_metric((state,), count)
    return found


def _devices(session: Session, now: float) -> Iterator[Metric]:
    rows = session.exec(
        select(DeviceRow.device_class, DeviceRow.phase, func.count())
        .where(*STANDING)
        .group_by(DeviceRow.device_class, DeviceRow.phase)
    )
    found = GaugeMetricFamily(
        "kedge_devices", "Devices by class and phase.", labels=("device_class", "phase")
    )
    phases = {each.value for each in Phase}
    counts: Counter[tuple[str, str]] = Counter()
    for device_class, phase, count in rows:
        counts[device_class, phase if phase in phases else _OTHER] += count
    for (device_class, phase), count in bounded(counts).items():
        found.add_metric((device_class, phase), count)
    yield found
    seen = GaugeMetricFamily("kedge_devices_seen", "Devices that asked lately.", labels=("within",))
    for label, seconds in _SEEN.items():
        query = select(func.count()).where(*STANDING, col(DeviceRow.last_seen) >= now - seconds)
        seen.add_metric((label,), session.exec(query).one())
    yield seen


def bounded(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Returns counts by (class, phase) with the classes that have fewest devices as one."""
    sizes: Counter[str] = Counter()
    for (name, _), count in counts.items():
        sizes[name] += count
    kept = {name for name, _ in sizes.most_common(_MOST_CLASSES)}
    found: Counter[tuple[str, str]] = Counter()
    for (name, phase), count in counts.items():
        found[name if name in kept else _OTHER, phase] += count
    return dict(found)


def _metadata(session: Session, settings: ServerSettings, now: float) -> Iterator[Metric]:
    left = GaugeMetricFamily(
        "kedge_metadata_expires_seconds", "Until a role's metadata expires.", labels=("role",)
    )
    lag = GaugeMetricFamily(
        "kedge_metadata_renewal_lag_seconds",
        "Since a role that the server signs should have been signed anew; 0 in time.",
        labels=("role",),
    )
    lives = {
        "timestamp": timedelta(hours=settings.timestamp_hours),
        "snapshot": timedelta(days=settings.snapshot_days),
    }
    soonest = sorted(expiries(session).items(), key=lambda each: each[1])
    for role, expires in soonest[:_MOST_ROLES]:
        left.add_metric((role,), expires.timestamp() - now)
        if role in lives:
            due = (expires - lives[role] / 2).timestamp()
            lag.add_metric((role,), max(0.0, now - due))
    yield left
    yield lag


def _measured(session: Session, now: float) -> Iterator[Metric]:
    """What boards measured in this hour and the one before; the hour before is whole."""
    names = ("device_class", "release")
    times = GaugeMetricFamily(
        "kedge_frame_time_ms", "Of the last full hour, read from merged histograms.",
        labels=(*names, "quantile"),
    )  # fmt: skip
    frames = GaugeMetricFamily("kedge_frames", "Frames of the last full hour.", labels=names)
    dropped = GaugeMetricFamily("kedge_frames_dropped", "The same, dropped.", labels=names)
    errors = GaugeMetricFamily("kedge_frame_errors", "The same, failed.", labels=names)
    start = now // _HOUR * _HOUR - _HOUR
    found = telemetry.measured(session, "hour", start + 1, start + _HOUR)
    busiest = sorted(found, key=lambda each: -each.windows)[:_MOST_PAIRS]
    for each in busiest:
        labels = (each.device_class, each.release)
        for name, value in (("0.5", each.p50_ms), ("0.95", each.p95_ms), ("0.99", each.p99_ms)):
            if value is not None:
                times.add_metric((*labels, name), value)
        frames.add_metric(labels, each.frames)
        dropped.add_metric(labels, each.dropped)
        errors.add_metric(labels, each.errors)
    yield from (times, frames, dropped, errors)


def _deliveries(session: Session) -> Metric:
    rows = session.exec(select(DeliveryRow.state, func.count()).group_by(DeliveryRow.state))
    found = GaugeMetricFamily(
        "kedge_webhook_deliveries", "Deliveries in the log by state.", labels=("state",)
    )
    for state, count in rows:
        found.add_metric((state,), count)
    return found
