"""Counts of the live loop, in windows that the updater collects."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque

from kedge_agent.detector import Detections
from kedge_shared.histogram import Histogram, bucket
from kedge_shared.protocol import CONFIDENCE_BINS, Window

_RECENT = 600
#: Frames that tell how the loop is at this moment.
_NEWEST = 30


class Telemetry:
    """Counts frames, drops, errors, detections and frame times. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.frames = 0
        self.errors = 0
        self.last_frame = time.monotonic()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._seen: deque[bool] = deque(maxlen=_RECENT)
        self._errors_before = 0
        self._dropped_before = 0
        self._begin()

    def _begin(self) -> None:
        self._started = time.time()
        self._since = time.monotonic()
        self._counts: dict[str, int] = {}
        self._total = 0.0
        self._window_frames = self._window_errors = 0
        self._detections: dict[str, int] = {}
        self._confidence = [0] * CONFIDENCE_BINS

    def frame(self, found: Detections) -> None:
        """Counts a frame that reached the sink."""
        with self._lock:
            self.frames += 1
            self._window_frames += 1
            self.last_frame = time.monotonic()
            self._recent.append(found.ms)
            self._seen.append(bool(len(found.rows)))
            index = str(bucket(found.ms))
            self._counts[index] = self._counts.get(index, 0) + 1
            self._total += found.ms
            for row in found.rows:
                name = found.classes[int(row[5])]
                self._detections[name] = self._detections.get(name, 0) + 1
                self._confidence[confidence_bin(float(row[4]))] += 1

    def error(self) -> None:
        """Counts a frame on which the engine failed."""
        with self._lock:
            self.errors += 1
            self._window_errors += 1

    def forget_recent(self) -> None:
        """Begins the recent frame times anew, after a swap."""
        with self._lock:
            self._recent.clear()
            self._seen.clear()
            self._errors_before = self.errors

    def recent_p95_ms(self) -> float:
        """Returns the 95th percentile of recent live frame times, milliseconds, or 0."""
        with self._lock:
            ordered = sorted(self._recent)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] if ordered else 0.0

    def recent_ms(self) -> float:
        """Returns the median of recent live frame times, milliseconds, or 0."""
        with self._lock:
            return statistics.median(self._recent) if self._recent else 0.0

    def frame_ms(self) -> float:
        """Returns the median time of the newest live frames, milliseconds, or 0."""
        with self._lock:
            newest = list(self._recent)[-_NEWEST:]
        return statistics.median(newest) if newest else 0.0

    def recent_seen(self) -> tuple[int, int]:
        """Returns recent live frames, and on how many of them something was seen."""
        with self._lock:
            return len(self._seen), sum(self._seen)

    def recent_errors(self) -> int:
        """Returns errors since the swap."""
        with self._lock:
            return self.errors - self._errors_before

    def take(self, dropped: int) -> Window:
        """Returns the window since the last call and begins the next.

        Args:
            dropped: Frames overwritten since the start.
        """
        with self._lock:
            window = Window(
                started=int(self._started),
                seconds=time.monotonic() - self._since,
                frames=self._window_frames,
                dropped=dropped - self._dropped_before,
                errors=self._window_errors,
                detections=self._detections,
                latency_ms=Histogram(self._counts, self._total),
                confidence=tuple(self._confidence),
            )
            self._dropped_before = dropped
            self._begin()
            return window


def confidence_bin(confidence: float) -> int:
    """Returns the bin of a confidence; what is no number in 0..1 counts at the nearer end."""
    if not confidence > 0:
        return 0
    return min(CONFIDENCE_BINS - 1, int(confidence * CONFIDENCE_BINS))
