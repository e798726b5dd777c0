"""The ladder by memory: which rung, and what each does to the loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kedge_agent.admission import Room, choose_rung
from kedge_agent.cgroups import memory_left_mb
from kedge_agent.errors import EngineError
from kedge_agent.hotswap import HotEngine
from tests.sim.engine import FRAME, SimDetector, slot_of
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("needed", "available", "active", "allow_gap", "rung"),
    [
        (100, 164, 0, False, "beside"),
        (100, 163.9, 0, False, "refuse"),
        # With the policy's leave, what the active engine surely gives back counts: half.
        (100, 64, 200, True, "gap"),
        (100, 64, 199, True, "refuse"),
        (100, 64, 200, False, "refuse"),
        # The gap is never taken where there is room for both.
        (100, 164, 200, True, "beside"),
        # Nothing serves: nothing can be unloaded.
        (100, 100, 0, True, "refuse"),
    ],
)
def test_the_rung(
    needed: float, available: float, active: float, allow_gap: bool, rung: str
) -> None:
    room = Room(needed_mb=needed, available_mb=available, active_mb=active)
    found = choose_rung(room, allow_gap=allow_gap)
    assert found.rung == rung
    assert f"{needed + 64:.0f} MiB" in found.reason
    assert f"{available:.0f} are free" in found.reason


@pytest.mark.parametrize(
    ("available", "rung"),
    [(260, "own-process"), (259.9, "gap"), (160, "gap"), (159.9, "refuse")],
)
def test_a_process_of_its_own_takes_more(available: float, rung: str) -> None:
    room = Room(needed_mb=100, available_mb=available, active_mb=200, own_process=True)
    assert choose_rung(room, allow_gap=True).rung == rung


def test_a_refusal_says_what_would_help() -> None:
    room = Room(needed_mb=100, available_mb=100, active_mb=400)
    assert "policy allows no gap" in choose_rung(room, allow_gap=False).reason
    hopeless = Room(needed_mb=1000, available_mb=100, active_mb=400)
    assert "also without the active one" in choose_rung(hopeless, allow_gap=True).reason


class Deferred:
    """A hot engine without room for two; knows how many are loaded at once."""

    def __init__(self) -> None:
        self.made: list[SimDetector] = []
        self.fails: set[str] = set()
        self.hot = HotEngine(self.make("old"))  # type: ignore[arg-type]

    def make(self, name: str, **more: Any) -> Any:
        assert not [each for each in self.made if not each.closed], "two at once do not fit"
        if name in self.fails:
            raise EngineError(f"{name} does not load")
        self.made.append(SimDetector(name, **more))
        return self.made[-1]

    def defer(self, name: str = "new", **more: Any) -> None:
        self.hot.defer(slot_of(name), lambda: self.make(name, **more), lambda: self.make("old"))

    def answers(self) -> str:
        answer = self.hot.infer(FRAME)
        return answer.slot.release if answer else "lost"


def test_unload_then_load_and_back() -> None:
    bench = Deferred()
    bench.defer()
    assert bench.hot.deferred("candidate")
    assert bench.answers() == "old", "until the swap it serves"
    with bench.hot.borrow("candidate") as lent:
        assert lent is None, "what is not loaded cannot be shadowed"
    bench.hot.swap()
    assert bench.answers() == "new"
    assert bench.hot.gap_ms > 0
    assert (bench.hot.slot("previous"), bench.hot.slot("candidate")) == (slot_of("old"), None)
    bench.hot.roll_back()
    assert bench.answers() == "old"
    assert bench.hot.slot("previous") is None
    bench.hot.close()
    assert [(each.name, each.closed) for each in bench.made] == [("old", 1), ("new", 1), ("old", 1)]
    assert not any(each.misused for each in bench.made)


def test_confirmed_it_stays() -> None:
    bench = Deferred()
    bench.defer()
    bench.hot.swap()
    bench.hot.drop("previous")
    assert bench.answers() == "new"
    with pytest.raises(EngineError, match="no previous"):
        bench.hot.roll_back()
    bench.hot.close()


def test_a_candidate_that_does_not_load_brings_the_old_one_back() -> None:
    bench = Deferred()
    bench.fails = {"new"}
    bench.defer()
    with pytest.raises(EngineError, match="new does not load"):
        bench.hot.swap()
    assert bench.answers() == "old"
    assert bench.hot.slot("candidate") is None
    bench.fails = set()
    bench.defer()
    bench.hot.swap()
    assert bench.answers() == "new", "and the next attempt is as good as the first"
    bench.hot.close()


def test_an_engine_that_fails_live_goes_back_over_the_gap_without_holding_up_the_loop() -> None:
    bench = Deferred()
    bench.defer(fails=True)
    bench.hot.swap()
    with pytest.raises(EngineError, match="new fails"):
        bench.answers()
    wait_for(lambda: bench.hot.fell_back)
    assert "new fails" in bench.hot.fell_back
    assert bench.answers() == "old"
    bench.hot.close()


def test_a_swap_with_room_has_no_gap_after_one_that_had() -> None:
    bench = Deferred()
    bench.defer()
    bench.hot.swap()
    bench.hot.drop("previous")
    bench.hot.load(lambda: SimDetector("third"))  # type: ignore[arg-type,return-value]
    bench.hot.swap()
    assert (bench.hot.gap_ms, bench.answers()) == (0.0, "third")
    bench.hot.close()


def group(folder: Path, names: tuple[str, str, str], limit: str, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(limit)
    (folder / names[1]).write_text(str(used))
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
MB = 2**20


def test_what_a_container_leaves(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "fs"
    own.write_text("0::/board/agent\n")
    assert memory_left_mb(own, root) is None
    group(root / "board/agent", V2, "max", 10 * MB, 0)
    assert memory_left_mb(own, root) is None
    group(root / "board", V2, str(100 * MB), 90 * MB, 20 * MB)
    assert memory_left_mb(own, root) == 30, "the limit of the group above; its cache is given up"
    group(root / "board/agent", V2, str(50 * MB), 60 * MB, 0)
    assert memory_left_mb(own, root) == 0


def test_what_an_old_container_leaves(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "fs"
    own.write_text("5:cpu:/x\n3:hugetlb,memory:/docker/a\n")
    group(root / "memory/docker/a", V1, str(64 * MB), 20 * MB, 4 * MB)
    assert memory_left_mb(own, root) == 48
    assert memory_left_mb(tmp_path / "none", root) is None
