"""HotEngine: change the engine inside a running loop without losing a frame.

For people with a loop of their own::

    hot = HotEngine(first)
    while True:
        answer = hot.infer(camera.read())      # always exactly one engine, always whole frames

    # from another thread, at any time
    hot.load(lambda: open_engine(Path("new.onnx"), classes=("cat", "dog"), size=640))
    hot.swap()                                 # the next frame is the new engine's
    hot.roll_back()                            # or the old one's again
    hot.drop("previous")                       # its memory goes back

The switch is a pointer under a lock that is held for microseconds; loading happens in a thread at
the lowest priority, freeing in another one. If the new engine fails on a live frame while the old
one is still kept, the old one answers that same frame and stays.

Where memory holds one engine only, :meth:`HotEngine.defer` takes the place of ``load``: the swap
then unloads before it loads, and :attr:`HotEngine.gap_ms` says what that took.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from kedge_agent import limits
from kedge_agent.detector import Detections
from kedge_agent.errors import EngineError, EngineLate
from kedge_agent.held import Held, Make, Servable, loaded, run, unload
from kedge_agent.local_protocol import Slot, SlotName
from kedge_shared.errors import KedgeError
from kedge_shared.vision import Frame


@dataclass(frozen=True)
class Answer:
    """What the loop gets for a frame.

    Attributes:
        found: Detections.
        slot: Engine that answered.
        new: The engine that answered is on probation: an older one is kept beside it.
        instead: The serving engine was late, and the older one answered this frame.
    """

    found: Detections
    slot: Slot
    new: bool
    instead: bool = False


class HotEngine:
    """Holds the serving engine, one that is to follow it and one to go back to.

    One thread calls :meth:`infer`; everything else may be called from any thread.

    Args:
        active: Engine that serves first, or ``None``.
        previous: Engine to go back to, after a restart in probation.
    """

    def __init__(self, active: Servable | None = None, previous: Servable | None = None) -> None:
        self._lock = threading.Lock()
        self._slots: dict[SlotName, Held | None] = {
            "active": loaded(active) if active else None,
            "candidate": None,
            "previous": loaded(previous) if previous else None,
        }
        self._gap_lock = threading.Lock()
        self._gap_ms = 0.0
        self._fell_back = ""
        self._late = 0
        self._switch_us = 0.0
        self._answered = threading.Event()
        self._reaper: queue.SimpleQueue[Held | None] = queue.SimpleQueue()
        self._reaping = threading.Thread(target=self._reap, name="reaper", daemon=True)
        self._reaping.start()

    @property
    def fell_back(self) -> str:
        """Why the previous engine took over by itself; empty if it did not."""
        return self._fell_back

    @property
    def late(self) -> int:
        """Frames that the older engine answered because the serving one was late."""
        return self._late

    @property
    def switch_us(self) -> float:
        """Time the last pointer switch took, microseconds."""
        return self._switch_us

    @property
    def gap_ms(self) -> float:
        """Time without an engine at the last switch, milliseconds; 0 where both were loaded."""
        return self._gap_ms

    def slot(self, name: SlotName) -> Slot | None:
        """Returns which engine a slot holds."""
        held = self._slots[name]
        return held.slot if held else None

    def deferred(self, name: SlotName) -> bool:
        """Says whether a slot's engine is not loaded, for want of memory."""
        held = self._slots[name]
        return held is not None and held.detector is None

    def infer(self, frame: Frame) -> Answer | None:
        """Answers one frame; ``None`` only while no engine is loaded at all.

        Args:
            frame: (h, w, 3) BGR uint8.

        Raises:
            EngineError: The engine failed and there is no other one.
        """
        with self._lock:
            held = self._slots["active"]
            kept = self._slots["previous"]
        if held is None:
            return None
        spare = kept if kept is not None and kept.detector is not None else None
        try:
            found = run(held, frame, in_time=spare is not None)
        except EngineError as error:
            if spare is not None and isinstance(error, EngineLate):
                return self._instead(spare, frame)
            if kept is None:
                raise
            if kept.detector is None:
                self._fall_back_with_gap(str(error))
                raise
            self._fall_back(held, str(error))
            held, found, kept = kept, run(kept, frame), None
        if found is None:  # unloaded since we looked
            return None
        self._answered.set()
        return Answer(found, held.slot, new=kept is not None)

    def _instead(self, spare: Held, frame: Frame) -> Answer | None:
        self._late += 1
        found = run(spare, frame)
        return None if found is None else Answer(found, spare.slot, new=False, instead=True)

    def load(self, make: Make) -> Slot:
        """Loads a candidate in a thread at the lowest priority and waits for it.

        Args:
            make: Loads and warms up an engine.

        Returns:
            Which engine it is.

        Raises:
            KedgeError: Whatever ``make`` raised; the loop is unharmed.
        """
        outcome: list[Servable | BaseException] = []
        loader = threading.Thread(target=_load, args=(make, outcome), name="loader", daemon=True)
        loader.start()
        loader.join()
        (result,) = outcome
        if isinstance(result, BaseException):
            limits.give_memory_back()
            raise result
        self.drop("candidate")
        with self._lock:
            self._slots["candidate"] = loaded(result)
        return result.slot

    def defer(self, slot: Slot, make: Make, again: Make) -> None:
        """Takes a candidate for which there is no room beside the active engine.

        It is loaded by :meth:`swap`, after the active engine was unloaded; until it is warm,
        frames are lost. Going back takes the same gap.

        Args:
            slot: Which engine it is.
            make: Loads and warms it up.
            again: Loads the active engine again.
        """
        self.drop("candidate")
        with self._lock:
            self._slots["candidate"] = Held(slot, None, make)
            active = self._slots["active"]
            if active is not None:
                active.make = again

    def swap(self) -> None:
        """Makes the candidate serve from the next frame on; the old engine is kept.

        Raises:
            EngineError: There is no candidate.
            KedgeError: A deferred candidate could not be loaded; the old engine serves again.
        """
        self.drop("previous")
        if self.deferred("candidate"):
            self._exchange("candidate")
            return
        self._gap_ms = 0.0
        with self._lock:
            candidate = self._slots["candidate"]
            if candidate is None:
                raise EngineError("there is no candidate to swap to")
            started = time.perf_counter_ns()
            self._slots["previous"] = self._slots["active"]
            self._slots["active"] = candidate
            self._slots["candidate"] = None
            self._switch_us = (time.perf_counter_ns() - started) / 1000
            self._fell_back = ""
            self._answered.clear()

    def roll_back(self) -> None:
        """Makes the previous engine serve again; the newer one is freed.

        Raises:
            EngineError: There is no previous engine.
            KedgeError: A deferred one could not be loaded again; the newer one still serves.
        """
        if self.deferred("previous"):
            self._exchange("previous")
            self.drop("previous")
            return
        with self._lock:
            previous, failed = self._slots["previous"], self._slots["active"]
            if previous is None:
                raise EngineError("there is no previous engine to go back to")
            self._slots["active"], self._slots["previous"] = previous, None
            self._answered.clear()
        self._retire(failed)

    def drop(self, name: SlotName) -> None:
        """Frees an engine that does not serve.

        Raises:
            ValueError: ``active`` is never dropped.
        """
        if name == "active":
            raise ValueError("the active engine is never dropped")
        with self._lock:
            held, self._slots[name] = self._slots[name], None
        self._retire(held)

    def wait_answered(self, timeout_seconds: float) -> bool:
        """Waits for the first frame after a switch; says whether it came."""
        return self._answered.wait(timeout_seconds)

    @contextmanager
    def borrow(self, name: SlotName) -> Iterator[Servable | None]:
        """Lends an engine that does not serve, to run it as a shadow."""
        with self._lock:
            held = self._slots[name]
        if held is None:
            yield None
            return
        with held.lock:
            # It may have been freed or begun to serve while we waited.
            yield held.detector if self._slots[name] is held else None

    def close(self) -> None:
        """Frees everything; :meth:`infer` is not called afterwards."""
        with self._lock:
            for name in self._slots:
                held, self._slots[name] = self._slots[name], None
                self._retire(held)
        self._reaper.put(None)
        self._reaping.join(timeout=5)

    def _exchange(self, name: SlotName) -> None:
        """Unloads the active engine, then loads the one of another slot in its place."""
        with self._gap_lock:
            with self._lock:
                old, new = self._slots["active"], self._slots[name]
                if new is None or new.make is None:
                    raise EngineError(f"there is no {name} engine to load")
                self._slots["active"] = self._slots[name] = None
                self._fell_back = ""
                self._answered.clear()
            started = time.perf_counter()
            unload(old)
            try:
                found = loaded(new.make())
            except BaseException:
                limits.give_memory_back()
                self._put_back(old)
                raise
            with self._lock:
                self._slots["active"] = found
                self._slots["previous"] = old
            self._gap_ms = (time.perf_counter() - started) * 1000

    def _put_back(self, old: Held | None) -> None:
        if old is not None and old.make is not None:
            restored = Held(old.slot, old.make(), old.make)
            with self._lock:
                self._slots["active"] = restored

    def _fall_back_with_gap(self, why: str) -> None:
        """Has the previous engine loaded again in a thread: the loop does not wait for it."""

        def exchange() -> None:
            # Whatever is wrong with it is told by the frames that nobody answers.
            with suppress(KedgeError):
                self.roll_back()
                self._fell_back = why

        if not self._gap_lock.locked():
            threading.Thread(target=exchange, name="fall back", daemon=True).start()

    def _fall_back(self, failed: Held, why: str) -> None:
        with self._lock:
            self._slots["active"], self._slots["previous"] = self._slots["previous"], None
            self._fell_back = why
        self._retire(failed)

    def _retire(self, held: Held | None) -> None:
        if held is not None and held.detector is not None:
            self._reaper.put(held)

    def _reap(self) -> None:
        limits.be_nice_thread()
        while (held := self._reaper.get()) is not None:
            unload(held)
            del held


def _load(make: Make, outcome: list[Servable | BaseException]) -> None:
    usual, before = limits.thread_priority(), limits.thread_ids()
    limits.be_nice_thread()
    try:
        outcome.append(make())
    # Boundary: a thread; whatever happened is raised again in the caller's.
    except BaseException as error:  # noqa: BLE001
        outcome.append(error)
    # The loader itself stays nice: it ends here.
    limits.restore_priority(limits.thread_ids() - before, usual)
