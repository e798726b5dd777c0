"""HotEngine: every frame is answered by exactly one whole engine, whatever happens around it."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kedge_agent.errors import EngineError
from kedge_agent.hotswap import HotEngine
from tests.sim.engine import FRAME, SimDetector, slot_of
from tests.waiting import PATIENCE, wait_for


class Swapping(RuleBasedStateMachine):
    """Any order of loads, swaps, roll-backs, drops and failures; the model says who answers."""

    @initialize()
    def begin(self) -> None:
        self.made: list[SimDetector] = []
        self.active: SimDetector = self.make()
        self.previous: SimDetector | None = None
        self.candidate: SimDetector | None = None
        self.hot = HotEngine(self.active)  # type: ignore[arg-type]

    def make(self, **options: bool) -> SimDetector:
        detector = SimDetector(f"engine-{len(self.made)}", **options)
        self.made.append(detector)
        return detector

    @rule()
    def infer(self) -> None:
        answer = self.hot.infer(FRAME)
        assert answer is not None
        assert answer.slot == self.active.slot
        assert answer.new == (self.previous is not None)

    @rule()
    def load(self) -> None:
        detector = self.make()
        assert self.hot.load(lambda: detector) == detector.slot  # type: ignore[arg-type,return-value]
        self.candidate = detector

    @rule()
    def load_that_fails(self) -> None:
        def refuse() -> SimDetector:
            raise EngineError("no such engine")

        with pytest.raises(EngineError, match="no such engine"):
            self.hot.load(refuse)  # type: ignore[arg-type]

    @rule()
    def swap(self) -> None:
        if self.candidate is None:
            with pytest.raises(EngineError, match="no candidate"):
                self.hot.swap()
            self.previous = None
            return
        self.hot.swap()
        self.previous, self.active, self.candidate = self.active, self.candidate, None

    @rule()
    def roll_back(self) -> None:
        if self.previous is None:
            with pytest.raises(EngineError, match="no previous"):
                self.hot.roll_back()
            return
        self.hot.roll_back()
        self.active, self.previous = self.previous, None

    @precondition(lambda self: self.previous is not None)
    @rule()
    def new_engine_fails_on_a_live_frame(self) -> None:
        assert self.previous is not None
        self.active.fails = True
        answer = self.hot.infer(FRAME)
        assert answer is not None
        assert answer.slot == self.previous.slot, "the old one answers that very frame"
        assert "fails" in self.hot.fell_back
        self.active, self.previous = self.previous, None

    @precondition(lambda self: self.previous is not None)
    @rule()
    def new_engine_gives_nan(self) -> None:
        assert self.previous is not None
        self.active.nan = True
        answer = self.hot.infer(FRAME)
        assert answer is not None
        assert answer.slot == self.previous.slot
        self.active, self.previous = self.previous, None

    @rule()
    def drop_previous(self) -> None:
        self.hot.drop("previous")
        self.previous = None

    @rule()
    def drop_candidate(self) -> None:
        self.hot.drop("candidate")
        self.candidate = None

    @rule()
    def active_is_never_dropped(self) -> None:
        with pytest.raises(ValueError, match="never dropped"):
            self.hot.drop("active")

    @invariant()
    def slots_are_as_told(self) -> None:
        if not hasattr(self, "hot"):
            return
        for name, expected in (
            ("active", self.active), ("previous", self.previous), ("candidate", self.candidate)
        ):  # fmt: skip
            found = self.hot.slot(name)  # type: ignore[arg-type]
            assert found == (expected.slot if expected else None), name

    @invariant()
    def nobody_is_misused(self) -> None:
        for each in getattr(self, "made", []):
            assert not each.misused, each

    def teardown(self) -> None:
        if not hasattr(self, "hot"):
            return
        kept = {id(each) for each in (self.active, self.previous, self.candidate)}
        wait_for(lambda: all(each.closed == 1 for each in self.made if id(each) not in kept))
        assert self.active.closed == 0
        self.hot.close()
        assert all(each.closed == 1 for each in self.made), "each is freed once"


def test_any_order_of_changes() -> None:
    run_state_machine_as_test(
        Swapping, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )


def test_a_loop_that_runs_through_fifty_swaps_loses_nothing() -> None:
    made = [SimDetector(f"e{each}", seconds=0.0005) for each in range(51)]
    hot = HotEngine(made[0])  # type: ignore[arg-type]
    answered: list[str] = []
    halt = threading.Event()

    def loop() -> None:
        while not halt.is_set():
            answer = hot.infer(FRAME)
            answered.append(answer.slot.release if answer else "lost")

    thread = threading.Thread(target=loop)
    thread.start()
    for each in made[1:]:
        hot.load(lambda each=each: each)
        hot.swap()
        assert hot.wait_answered(PATIENCE)
    halt.set()
    thread.join()
    hot.close()
    assert "lost" not in answered
    order = list(dict.fromkeys(answered))
    assert order == [each.name for each in made], "each served, in turn, and none came back"
    assert not any(each.misused for each in made)
    assert all(each.closed == 1 for each in made)


def test_a_shadow_on_the_old_engine_and_its_freeing_do_not_meet() -> None:
    old, new = SimDetector("old", seconds=0.02), SimDetector("new")
    hot = HotEngine(old)  # type: ignore[arg-type]
    hot.load(lambda: new)  # type: ignore[arg-type,return-value]
    hot.swap()
    started = threading.Event()

    def shadow() -> None:
        with hot.borrow("previous") as detector:
            assert detector is not None
            started.set()
            detector.detect(FRAME)

    thread = threading.Thread(target=shadow)
    thread.start()
    assert started.wait(PATIENCE)
    hot.drop("previous")
    thread.join()
    wait_for(lambda: old.closed == 1)
    assert old.misused == []
    with hot.borrow("previous") as detector:
        assert detector is None
    hot.close()


def test_without_an_engine_frames_wait_unanswered() -> None:
    hot = HotEngine()
    assert hot.infer(FRAME) is None
    hot.load(lambda: SimDetector("first"))  # type: ignore[arg-type,return-value]
    hot.swap()
    answer = hot.infer(FRAME)
    assert answer is not None
    assert (answer.slot, answer.new) == (slot_of("first"), False)
    hot.close()


def test_an_engine_without_a_predecessor_fails_loudly() -> None:
    hot = HotEngine(SimDetector("only", fails=True))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="only fails"):
        hot.infer(FRAME)
    assert hot.slot("active") == slot_of("only"), "it stays: nothing else is there"
    hot.close()


def test_threads_that_an_engine_makes_while_loading_are_not_left_nice() -> None:
    import os

    pool: list[int] = []
    ready, halt = threading.Event(), threading.Event()

    def work() -> None:
        pool.append(threading.get_native_id())
        ready.set()
        halt.wait(PATIENCE)

    def make() -> SimDetector:
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 19
        threading.Thread(target=work, daemon=True).start()
        assert ready.wait(PATIENCE)
        return SimDetector("pooled")

    hot = HotEngine()
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    hot.load(make)  # type: ignore[arg-type]
    found = os.getpriority(os.PRIO_PROCESS, pool[0])
    halt.set()
    hot.close()
    if os.geteuid() == 0:
        assert found == before
