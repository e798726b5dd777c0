"""Carries out what the updater asks of the runner."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from kedge_agent import limits
from kedge_agent.admission import Admission, Isolation, Room, choose_rung
from kedge_agent.blobs import BlobStore
from kedge_agent.building.forms import Loadable, loadable
from kedge_agent.detector import Detector, isolation_of, load_detector, open_slot
from kedge_agent.errors import EngineError, EngineKilled, Misfit
from kedge_agent.evidence.summary import Evidence
from kedge_agent.frames import LatestFrames
from kedge_agent.hotswap import HotEngine
from kedge_agent.local_protocol import (
    Answer,
    Done,
    Drop,
    Failed,
    Hello,
    LoadCandidate,
    RunnerState,
    Slot,
    SlotName,
    StartShadow,
    Status,
    Swap,
    TakeWindow,
)
from kedge_agent.local_protocol import Telemetry as TelemetryAnswer
from kedge_agent.pipeline import Loop
from kedge_agent.runtimes.base import Runtime
from kedge_agent.runtimes.registry import left_mb, takes_mb
from kedge_agent.shadow import Shadow
from kedge_agent.slots import read_slots
from kedge_agent.sources.feed import Feeds
from kedge_agent.start import forget_starts, same
from kedge_agent.telemetry import Telemetry
from kedge_shared.errors import InputError, KedgeError, StorageError, TrustError

#: A new engine must answer its first live frame within this, seconds.
_FIRST_FRAME_SECONDS = 15.0
#: Frames without an error for so long make a start a healthy one.
_HEALTHY_SECONDS = 30.0


#: What the updater is told of a load that failed; a crash is what none of them is.
_WORDS: tuple[tuple[tuple[type[KedgeError], ...], str], ...] = (
    ((TrustError,), "trust"),
    ((Misfit,), "misfit"),
    ((EngineKilled,), "memory"),
    ((StorageError, InputError), "disk"),
)


def _code(error: KedgeError) -> str:
    found = (code for kinds, code in _WORDS if isinstance(error, kinds))
    return next(found, "crash")


@dataclass
class Control:
    """The runner's parts and what may be asked of them.

    Attributes:
        hot: Engines.
        loop: The live loop.
        telemetry: Its counts.
        frames: Slots between sources and loop.
        sources: Read frames.
        store: Blobs.
        runtimes: By name.
        threads: Threads an engine may use.
        state_dir: Where starts are counted.
        isolation: Where engines live; ``None`` is where their runtime wants them.
        fell_back: Why the start took the previous engine; empty if not.
        stills: No two frames of the source show the same objects.
        available_mb: Memory that can still be taken, MiB.
    """

    hot: HotEngine
    loop: Loop
    telemetry: Telemetry
    frames: LatestFrames
    sources: Feeds
    store: BlobStore
    runtimes: Mapping[str, Runtime]
    threads: int
    state_dir: Path
    isolation: Isolation | None = None
    fell_back: str = ""
    stills: bool = False
    available_mb: Callable[[], float] = limits.available_memory_mb
    _changing: threading.Lock = field(default_factory=threading.Lock)
    _begun: float = field(default_factory=time.monotonic)
    _healthy: bool = False
    _share: float = 0.1
    _switched: bool = False
    _on_trial: bool = False
    _seen_before: float = 0.0
    _live_before_ms: float = 0.0

    def handle(self, request: Any) -> Answer:
        """Carries out one request; changes are made one at a time."""
        if isinstance(request, (Hello, Status)):
            return self.state()
        if isinstance(request, TakeWindow):
            return TelemetryAnswer(self.telemetry.take(self.frames.dropped))
        change = self._change(request)
        with self._changing:
            try:
                change()
            except KedgeError as error:
                return Failed(_code(error), str(error))
            except MemoryError as error:
                return Failed("memory", str(error) or "not enough memory for the engine")
        return Done(self.state())

    def state(self) -> RunnerState:
        """Returns where the runner stands."""
        return RunnerState(
            pid=os.getpid(),
            active=self.hot.slot("active"),
            candidate=self.hot.slot("candidate"),
            previous=self.hot.slot("previous"),
            fell_back=self.hot.fell_back or self.fell_back,
            evidence=self._evidence(),
            frames=self.telemetry.frames,
            dropped=self.frames.dropped,
            errors=self.telemetry.errors,
            last_frame_age_s=time.monotonic() - self.telemetry.last_frame,
            swap_gap_ms=self.loop.longest_gap_ms if self._switched else 0.0,
            switch_us=self.hot.switch_us,
            late=self.hot.late,
            frame_ms=self.telemetry.frame_ms(),
            deferred=self.hot.deferred("candidate") or self.hot.deferred("previous"),
            sources=self.sources.state(),
            sinks=tuple(each.state() for each in self.loop.sinks),
        )

    def _evidence(self) -> Evidence | None:
        """Returns what speaks for or against the newer engine, beside the older one or alone."""
        shadow = self.loop.shadow
        serving_new = self.hot.slot("previous") is not None
        live = self.telemetry.recent_p95_ms() if serving_new or self._on_trial else 0.0
        if shadow is not None:
            found = shadow.evidence(live)
            before = self._live_before_ms if serving_new else 0.0
            return msgspec.structs.replace(found, live_before_ms=before)
        if not self._on_trial:
            return None
        frames, seen = self.telemetry.recent_seen()
        return Evidence(
            frames=frames, answered=seen, new_p95_ms=live, errors=self.telemetry.recent_errors(),
            alone=True, seen_before=self._seen_before,
        )  # fmt: skip

    def note_health(self) -> None:
        """Forgets counted starts once the loop has run well for a while."""
        if self._healthy or time.monotonic() - self._begun < _HEALTHY_SECONDS:
            return
        if self.telemetry.frames and not self.telemetry.errors:
            self._healthy = True
            forget_starts(self.state_dir, read_slots(self.state_dir).deployment)

    def watch_alone(self) -> None:
        """Tells of the serving engine what there is to tell without another one."""
        self._on_trial = True

    def shadow_previous(self) -> None:
        """Begins the reverse shadow."""
        self._start_shadow("previous", "active")

    def _change(self, request: Any) -> Callable[[], None]:
        if isinstance(request, LoadCandidate):
            return lambda: self._load(request)
        if isinstance(request, StartShadow):
            return lambda: self._shadow(request)
        if isinstance(request, Drop):
            return lambda: self._drop(request.slot)
        return self._swap if isinstance(request, Swap) else self._roll_back

    def _load(self, request: LoadCandidate) -> None:
        slot, active = request.slot, self.hot.slot("active")
        admission = self._admit(slot, active)
        if admission.rung == "refuse":
            raise MemoryError(admission.reason)
        if admission.rung == "gap" and active is not None:
            self.hot.defer(slot, self._maker(slot), self._maker(active))
        else:
            self.hot.load(self._maker(slot))

    def _maker(self, slot: Slot) -> Callable[[], Detector]:
        return partial(load_detector, slot, self.store, self.runtimes, self.threads, self.isolation)

    def _admit(self, slot: Slot, active: Slot | None) -> Admission:
        # Going back is always worth a gap.
        back = same(slot, read_slots(self.state_dir).active)
        wanted = self._loadable(slot)
        serving = takes_mb(self._loadable(active), self.runtimes) if active is not None else 0.0
        where = isolation_of(wanted.runtime, self.runtimes, self.isolation)
        return choose_rung(
            Room(
                needed_mb=takes_mb(wanted, self.runtimes),
                available_mb=min(self.available_mb(), left_mb(wanted, self.runtimes)),
                active_mb=serving,
                own_process=where == "own-process",
            ),
            allow_gap=back or open_slot(slot, self.store).policy.allow_gap,
        )

    def _loadable(self, slot: Slot) -> Loadable:
        return loadable(open_slot(slot, self.store).manifest, slot.form, self.store)

    def _shadow(self, request: StartShadow) -> None:
        self._share = request.share
        self.stills = self.stills or request.stills
        if self.hot.slot("candidate") is not None:
            self._start_shadow("candidate", "candidate")
        elif self.hot.slot("previous") is not None:
            self._start_shadow("previous", "active")
        else:
            raise EngineError("there is nothing to shadow")

    def _start_shadow(self, run: SlotName, newer: SlotName) -> None:
        self._stop_shadow()
        slot = self.hot.slot(newer)
        if slot is None:
            return
        manifest = open_slot(slot, self.store).manifest
        shadow = Shadow(self.hot, run, manifest, self._share, stills=self.stills)
        shadow.start()
        self.loop.shadow = shadow

    def _stop_shadow(self) -> None:
        shadow, self.loop.shadow = self.loop.shadow, None
        if shadow is not None:
            shadow.stop()

    def _swap(self) -> None:
        self._stop_shadow()
        self.loop.watch_gap()
        frames, seen = self.telemetry.recent_seen()
        self._seen_before = seen / frames if frames else 0.0
        self._live_before_ms = self.telemetry.recent_ms()
        self.hot.swap()
        self._switched = self._on_trial = True
        self.fell_back = ""
        self._after_switch()
        if self.hot.slot("previous") is not None and not self.hot.deferred("previous"):
            self._start_shadow("previous", "active")

    def _roll_back(self) -> None:
        self._stop_shadow()
        self.hot.roll_back()
        self._on_trial = False
        self._after_switch()

    def _drop(self, name: SlotName) -> None:
        self._stop_shadow()
        self.hot.drop(name)

    def _after_switch(self) -> None:
        self.telemetry.forget_recent()
        self.sources.opens.set()
        if not self.hot.wait_answered(_FIRST_FRAME_SECONDS):
            raise EngineError("no frame was answered after the switch")
