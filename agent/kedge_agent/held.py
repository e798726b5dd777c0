"""An engine as :class:`kedge_agent.hotswap.HotEngine` holds it: one caller at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from kedge_agent import limits
from kedge_agent.detector import Detections
from kedge_agent.errors import EngineError
from kedge_agent.local_protocol import Slot
from kedge_shared.vision import Frame


class Servable(Protocol):
    """What a HotEngine changes: a :class:`~kedge_agent.detector.Detector`, or one's own."""

    @property
    def slot(self) -> Slot:
        """Which engine it is."""
        ...

    def detect(self, frame: Frame) -> Detections:
        """Answers one frame, (h, w, 3) BGR uint8; whatever it raises counts as a failure."""
        ...

    def close(self) -> None:
        """Frees it; called once, never while it runs."""
        ...


@runtime_checkable
class Punctual(Protocol):
    """A Servable that can give a frame up: the older engine answers it, and both stay."""

    def detect_in_time(self, frame: Frame) -> Detections:
        """Answers one frame, or says soon that it is late.

        Raises:
            EngineLate: It is not done with it, or still at an earlier one.
        """
        ...


Make = Callable[[], Servable]


@dataclass
class Held:
    """An engine with the lock that keeps two callers from it.

    Attributes:
        slot: Which engine it is.
        detector: Loaded; ``None`` while there is no room for it.
        make: Loads it, where it is not.
    """

    slot: Slot
    detector: Servable | None
    make: Make | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


def loaded(detector: Servable) -> Held:
    """Returns a detector that was loaded, to be held."""
    return Held(detector.slot, detector)


def unload(held: Held | None) -> None:
    """Frees an engine and gives its memory back, once nobody runs it."""
    if held is None or held.detector is None:
        return
    with held.lock, suppress(EngineError):
        held.detector.close()
        held.detector = None
    limits.give_memory_back()


def run(held: Held, frame: Frame, *, in_time: bool = False) -> Detections | None:
    """Answers one frame; ``None`` where the engine was unloaded meanwhile.

    Args:
        held: Engine.
        frame: (h, w, 3) BGR uint8.
        in_time: It may give the frame up, where it knows how.

    Raises:
        EngineError: It failed, is late, or gives NaN.
    """
    with held.lock:
        detector = held.detector
        if detector is None:
            return None
        try:
            if in_time and isinstance(detector, Punctual):
                found = detector.detect_in_time(frame)
            else:
                found = detector.detect(frame)
        except EngineError:
            raise
        # Boundary: a detector may be people's own; whatever it raises, the older engine answers.
        except Exception as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error
    if not found.finite:
        raise EngineError("engine gives NaN")
    return found
