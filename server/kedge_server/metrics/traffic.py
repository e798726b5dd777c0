"""Counts requests: an ASGI layer around everything, with as few labels as there are kinds."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Path → what it is; a path is never a label, whoever asks for it.
_EXACT = {
    "/api/v1/device/poll": "poll",
    "/api/v1/device/reports": "report",
    "/api/v1/enrol": "enrol",
    "/api/v1/events": "events",
    "/metrics": "metrics",
    "/healthz": "health",
}
_PREFIXES = (
    ("/api/v1/artifacts/", "artifact"),
    ("/tuf/", "metadata"),
    ("/api/v1/bench", "bench"),
    ("/api/", "operator"),
)
_KINDS = sorted({*_EXACT.values(), *(kind for _, kind in _PREFIXES), "other"})
_OUTCOMES = ("1xx", "2xx", "304", "3xx", "4xx", "5xx", "none")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Traffic:
    """Requests by kind and outcome.

    Args:
        registry: Where they are told.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "kedge_http_requests", "Requests answered.", ("kind", "outcome"), registry=registry
        )
        seconds = Histogram(
            "kedge_http_request_seconds", "From the first byte of a request to its answer's head.",
            ("kind",), buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        # Looked up once: the poll is the hot path.
        self._requests = {
            (kind, outcome): requests.labels(kind, outcome)
            for kind in _KINDS
            for outcome in _OUTCOMES
        }
        self._seconds = {kind: seconds.labels(kind) for kind in _KINDS}

    def count(self, path: str, status: int | None, seconds: float) -> None:
        """Counts a request; ``None`` where no answer was begun."""
        kind = kind_of(path)
        self._requests[kind, outcome_of(status)].inc()
        self._seconds[kind].observe(seconds)


class TrafficLayer:
    """Counts what passes through.

    Args:
        app: What answers.
        traffic: Where it is counted.

    Attributes:
        app: What answers.
    """

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self.app, self._traffic = app, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, counted = time.perf_counter(), False

        async def sending(message: Message) -> None:
            nonlocal counted
            if message["type"] == "http.response.start" and not counted:
                counted = True
                seconds = time.perf_counter() - began
                self._traffic.count(scope["path"], message["status"], seconds)
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            if not counted:
                self._traffic.count(scope["path"], None, time.perf_counter() - began)


def kind_of(path: str) -> str:
    """Returns what a path is, of a handful of kinds."""
    found = _EXACT.get(path)
    if found is not None:
        return found
    return next((kind for prefix, kind in _PREFIXES if path.startswith(prefix)), "other")


def outcome_of(status: int | None) -> str:
    """Returns the class of a status; 304 by itself, because most polls end with it."""
    if status is None:
        return "none"
    return "304" if status == 304 else f"{status // 100}xx"
