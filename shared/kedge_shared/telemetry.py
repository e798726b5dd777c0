"""What operators read of the fleet's telemetry."""

from __future__ import annotations

from dataclasses import dataclass, field

from kedge_shared.histogram import Histogram


@dataclass(frozen=True, kw_only=True)
class TelemetryInfo:
    """All windows of a device class and a release in an hour or a day.

    Percentiles are read from the merged histogram; whoever wants longer spans or several classes
    together adds the histograms, never the percentiles (kedge_shared.histogram.merge).

    Attributes:
        start: Unix seconds, UTC.
        seconds: Of the span: an hour or a day.
        device_class: Which boards.
        release: What they ran; empty where none, or one that was not published here.
        windows: Windows that boards reported.
        frames: Frames that reached the sink.
        dropped: Frames overwritten before the engine took them.
        errors: Frames on which the engine failed.
        p50_ms: Of frame time, milliseconds; ``None`` without a frame.
        p95_ms: The same.
        p99_ms: The same.
        latency_ms: Its histogram.
        confidence: Detections by confidence, equal bins of 0..1.
    """

    start: int
    seconds: int
    device_class: str
    release: str
    windows: int
    frames: int
    dropped: int
    errors: int
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    latency_ms: Histogram = field(default_factory=Histogram)
    confidence: tuple[int, ...] = ()
