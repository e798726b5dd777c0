"""What the scheduler did, as APScheduler tells it."""

from __future__ import annotations

import time
from typing import Any

from apscheduler import events
from prometheus_client import CollectorRegistry, Counter, Gauge

_OUTCOMES = {
    events.EVENT_JOB_EXECUTED: "done",
    events.EVENT_JOB_ERROR: "error",
    events.EVENT_JOB_MISSED: "missed",
    events.EVENT_JOB_MAX_INSTANCES: "still running",
}


class Jobs:
    """Runs of the scheduler's jobs.

    Args:
        registry: Where they are told.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = Counter(
            "kedge_scheduler_runs_total", "Runs of a job.", ("job", "outcome"), registry=registry
        )
        self._last = Gauge(
            "kedge_scheduler_last_run_timestamp_seconds", "End of a job's last run, Unix seconds.",
            ("job",), registry=registry,
        )  # fmt: skip

    def watch(self, scheduler: Any) -> None:
        """Listens to a scheduler; a job is told by the name of its function."""
        names = {job.id: job.name for job in scheduler.get_jobs()}

        def heard(event: Any) -> None:
            name = names.get(event.job_id, "other")
            self._runs.labels(name, _OUTCOMES[event.code]).inc()
            if event.code == events.EVENT_JOB_EXECUTED:
                self._last.labels(name).set(time.time())

        mask = 0
        for each in _OUTCOMES:
            mask |= each
        scheduler.add_listener(heard, mask)
