"""The server's registry: what is counted as it happens, and what is read when asked."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from kedge_server.context import Context
from kedge_server.metrics.fleet import Fleet
from kedge_server.metrics.jobs import Jobs
from kedge_server.metrics.traffic import Traffic

# When a counter was made is of no use here, and doubles what is sent.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """Everything that ``/metrics`` tells.

    Attributes:
        registry: Of this server alone, not of the process.
        traffic: Requests.
        jobs: The scheduler.

    Args:
        context: The server.
    """

    def __init__(self, context: Context) -> None:
        self.registry = CollectorRegistry()
        self.traffic, self.jobs = Traffic(self.registry), Jobs(self.registry)
        self.registry.register(Fleet(context))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
