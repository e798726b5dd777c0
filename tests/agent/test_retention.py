"""What leaves the disk: never what active and previous stand on, and never for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kedge_agent.retention import Plan, Room, Stored, plan, sweep

ENDLESS = Room(free=10**12, reserve=0)


def blob(name: str, length: int = 10) -> Stored:
    return Stored(name=name, length=length)


def partial(name: str, length: int = 5) -> Stored:
    return Stored(name=name, length=length, kind="partial")


@pytest.mark.parametrize(
    ("stored", "kept", "coming", "room", "expected"),
    [
        # Room enough: nothing is removed for nothing.
        ([blob("a"), blob("old")], {"a"}, {"n": 100}, ENDLESS, Plan((), 0)),
        # The budget takes what nobody needs, and no more of it than is wanting.
        (
            [blob("a", 50), blob("x", 30), blob("y", 20)], {"a"}, {"n": 40},
            Room(free=10**9, reserve=0, budget=120), Plan((blob("x", 30),), 0),
        ),
        # Broken-off downloads of others go first.
        (
            [blob("a", 50), blob("x", 30), partial("z", 20)], {"a"}, {"n": 40},
            Room(free=10**9, reserve=0, budget=120), Plan((partial("z", 20),), 0),
        ),
        # What is there already is not counted twice, what is half there only by its rest.
        (
            [blob("a", 50), partial("n", 30)], {"a"}, {"a": 50, "n": 40},
            Room(free=10, reserve=0), Plan((), 0),
        ),
        ([partial("n", 30)], set(), {"n": 40}, Room(free=9, reserve=0), Plan((), 1)),
        # The reserve is not the agent's.
        ([], set(), {"n": 40}, Room(free=100, reserve=70), Plan((), 10)),
        ([], set(), {"n": 40}, Room(free=50, reserve=70), Plan((), 40)),
        # What does not fit removes nothing: active and previous are not to be had.
        (
            [blob("a", 60), blob("p", 60), blob("x", 5)], {"a", "p"}, {"n": 40},
            Room(free=10**9, reserve=0, budget=150), Plan((), 10),
        ),
    ],
)  # fmt: skip
def test_rows(
    stored: list[Stored], kept: set[str], coming: dict[str, int], room: Room, expected: Plan
) -> None:
    assert plan(stored, kept, coming, room) == expected


def test_a_sweep_takes_what_nobody_needs() -> None:
    assert sweep([blob("a"), blob("x"), partial("x"), partial("a")], {"a"}) == (
        blob("x"), partial("x"),
    )  # fmt: skip


class BoardDisk(RuleBasedStateMachine):
    """A board's life: builds that share files come, break off, are confirmed or thrown out."""

    @initialize(budget=st.none() | st.integers(50, 400), size=st.integers(50, 500))
    def begin(self, budget: int | None, size: int) -> None:
        self.budget, self.size = budget, size
        self.disk: dict[tuple[str, str], int] = {}
        self.lengths: dict[str, int] = {}
        self.active: dict[str, int] = {}
        self.previous: dict[str, int] = {}
        self.coming: dict[str, int] = {}
        self.arrived = False

    def stored(self) -> list[Stored]:
        return [Stored(name=n, length=size, kind=k) for (k, n), size in self.disk.items()]  # type: ignore[arg-type]

    def used(self) -> int:
        return sum(self.disk.values())

    def remove(self, gone: tuple[Stored, ...]) -> None:
        for each in gone:
            del self.disk[each.kind, each.name]

    @rule(names=st.sets(st.sampled_from("abcdefghij"), min_size=1, max_size=4), data=st.data())
    def assign(self, names: set[str], data: Any) -> None:
        for each in names:
            self.lengths.setdefault(each, data.draw(st.integers(1, 90)))
        coming = {each: self.lengths[each] for each in names}
        room = Room(free=self.size - self.used(), reserve=10, budget=self.budget)
        found = plan(self.stored(), self.active.keys() | self.previous.keys(), coming, room)
        if found.short:
            assert not found.remove
            self.coming, self.arrived = {}, False
            return
        self.remove(found.remove)
        self.coming, self.arrived = coming, False
        missing = sum(
            length - self.disk.get(("partial", name), 0)
            for name, length in coming.items() if ("blob", name) not in self.disk
        )  # fmt: skip
        assert missing == 0 or self.used() + missing <= self.size - 10
        assert self.budget is None or self.used() + missing <= max(self.budget, self.used())
        assert self.budget is None or missing == 0 or self.used() + missing <= self.budget

    @rule(share=st.floats(0, 1))
    def download(self, share: float) -> None:
        for name, length in self.coming.items():
            if ("blob", name) in self.disk:
                continue
            if share < 1:
                begun = self.disk.get(("partial", name), 0)
                self.disk["partial", name] = max(begun, int(length * share))
                return
            self.disk.pop(("partial", name), None)
            self.disk["blob", name] = length
        self.arrived = bool(self.coming)

    @rule()
    def confirm(self) -> None:
        if self.arrived:
            self.active, self.previous = self.coming, self.active
            self.coming, self.arrived = {}, False
            self.remove(sweep(self.stored(), self.active.keys() | self.previous.keys()))

    @rule()
    def roll_back(self) -> None:
        if self.previous:
            self.active, self.previous = self.previous, {}

    @rule()
    def power_cut_loses_the_deployment(self) -> None:
        self.coming, self.arrived = {}, False

    @invariant()
    def active_and_previous_are_whole(self) -> None:
        if not hasattr(self, "disk"):
            return
        for name, length in (*self.active.items(), *self.previous.items()):
            assert self.disk.get(("blob", name)) == length
        assert self.used() <= self.size


BoardDisk.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestBoardDisk = BoardDisk.TestCase
