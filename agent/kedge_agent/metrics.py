"""The local Prometheus endpoint: off unless it is asked for, and of this machine alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from kedge_agent.local_protocol import RunnerState
from kedge_shared import __version__
from kedge_shared.errors import InputError
from kedge_shared.histogram import Histogram
from kedge_shared.protocol import BoardReadings

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Bounds of the frame time, milliseconds: a power of two is a bound of the exponential histogram
#: too, so the counts are exact.
_BOUNDS_MS = tuple(2.0**power for power in range(13))
_BUCKETS_PER_OCTAVE = 8


@dataclass(frozen=True, kw_only=True)
class MetricsSettings:
    """Where Prometheus may ask.

    Attributes:
        port: TCP port.
        address: To listen at.
        beyond_this_machine: Has to be said for any address but loopback: whoever reaches it reads
            what this board sees.
    """

    port: Annotated[int, Meta(ge=1, le=65535)]
    address: str = "127.0.0.1"
    beyond_this_machine: bool = False


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What there is to tell at one moment.

    Attributes:
        device: Name of the board.
        release: That serves, or empty.
        phase: Of the last deployment, or empty.
        runner: Its account, or ``None`` while it does not answer.
        latency_ms: Frame times since the start of the updater.
        detections: Class → count, since the start of the updater.
        board: Readings of the last window, or ``None``.
        waiting: Reports not yet acknowledged.
        lost: Reports dropped unsent.
        downloaded: Bytes of artifacts, ever.
    """

    device: str
    release: str = ""
    phase: str = ""
    runner: RunnerState | None = None
    latency_ms: Histogram = field(default_factory=Histogram)
    detections: Mapping[str, int] = field(default_factory=dict)
    board: BoardReadings | None = None
    waiting: int = 0
    lost: int = 0
    downloaded: int = 0


def check(settings: MetricsSettings) -> None:
    """Checks that nobody opens a port to the world by accident.

    Raises:
        InputError: The address is none, or not loopback without a word about it.
    """
    try:
        address = ipaddress.ip_address(settings.address)
    except ValueError:
        raise InputError(f"metrics.address {settings.address!r} is no IP address") from None
    if not address.is_loopback and not settings.beyond_this_machine:
        raise InputError(
            f"metrics.address {settings.address} is open to other machines",
            "take 127.0.0.1, or say metrics.beyond_this_machine: true",
        )


def serve(settings: MetricsSettings, snapshot: Callable[[], Snapshot]) -> Callable[[], None]:
    """Answers Prometheus in a thread of its own; returns what ends that.

    Raises:
        InputError: The extra is not installed, or the port is taken.
    """
    check(settings)
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise InputError(
            "metrics need prometheus-client", "install it with pip install 'kedge[metrics]'"
        ) from None
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot))
    try:
        server, thread = start_http_server(settings.port, settings.address, registry)
    except OSError as error:
        where = f"{settings.address}:{settings.port}"
        raise InputError(f"metrics cannot listen at {where}: {error.strerror}") from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close


class _Collector:
    """prometheus_client's port."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        """Says nothing: registering must not ask the runner."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Tells of the moment of the scrape."""
        found = self._snapshot()
        yield from _of_the_agent(found)
        yield from _of_the_loop(found)
        if found.board is not None:
            yield from _of_the_board(found.board)


def _of_the_agent(found: Snapshot) -> Iterator[Metric]:
    from prometheus_client.core import InfoMetricFamily

    labels = {
        "device": found.device, "release": found.release, "phase": found.phase,
        "version": __version__,
    }  # fmt: skip
    yield InfoMetricFamily("kedge_agent", "This board.", value=labels)
    yield _gauge("kedge_runner_up", "The live loop answers.", float(found.runner is not None))
    yield _gauge("kedge_reports_waiting", "Reports not yet acknowledged.", found.waiting)
    yield _counter("kedge_reports_lost", "Reports that were dropped unsent.", found.lost)
    yield _counter("kedge_downloaded_bytes", "Bytes of artifacts.", found.downloaded)


def _of_the_loop(found: Snapshot) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    runner = found.runner
    if runner is not None:
        yield _counter("kedge_frames", "Frames that reached the sink.", runner.frames)
        yield _counter("kedge_frames_dropped", "Frames that were overwritten.", runner.dropped)
        yield _counter("kedge_frame_errors", "Frames on which the engine failed.", runner.errors)
        age = runner.last_frame_age_s
        yield _gauge("kedge_last_frame_age_seconds", "Since the last frame.", age)
    seen = CounterMetricFamily("kedge_detections", "Detections by class.", labels=["class"])
    for name, count in sorted(found.detections.items()):
        seen.add_metric([name], count)
    yield seen
    yield HistogramMetricFamily(
        "kedge_frame_seconds",
        "Frame time of the windows that were collected.",
        buckets=cumulative(found.latency_ms),
        sum_value=found.latency_ms.total / 1000,
    )


def _of_the_board(board: BoardReadings) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    heat = GaugeMetricFamily("kedge_temperature_celsius", "By sensor.", labels=["sensor"])
    for name, degrees in sorted(board.temperatures_c.items()):
        heat.add_metric([name], degrees)
    yield heat
    for name in ("cpu", "gpu", "npu"):
        share = getattr(board, name)
        if share is not None:
            yield _gauge(f"kedge_{name}_used_ratio", "Share of the last window, 0..1.", share)
    if board.throttled is not None:
        held = float(bool(board.throttled))
        yield _gauge("kedge_throttled", "Something held the board back.", held)
    if board.disk_free_mb is not None:
        free = board.disk_free_mb * 2**20
        yield _gauge("kedge_disk_free_bytes", "Of the state directory.", free)


def cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """Returns Prometheus' buckets: bound in seconds → count at or below it."""
    counts = {int(index): count for index, count in histogram.counts.items()}
    rows: list[tuple[str, float]] = []
    for power, bound in enumerate(_BOUNDS_MS):
        below = sum(n for index, n in counts.items() if index < power * _BUCKETS_PER_OCTAVE)
        rows.append((str(bound / 1000), below))
    return [*rows, ("+Inf", histogram.count)]


def _gauge(name: str, help_: str, value: float) -> Any:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, help_, value=value)


def _counter(name: str, help_: str, value: float) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, help_, value=value)
