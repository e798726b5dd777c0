"""The figures of ``summary.json``: what is counted as lost must be lost, and all of it."""

from __future__ import annotations

import json
from pathlib import Path

from demo.summary import SinkFrame, Span, measure, percentile, read_sink, release_row
from kedge_shared import api
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict


def frames(*sequence: tuple[int, float, str]) -> list[SinkFrame]:
    return [SinkFrame(seq, t, release, 4.0) for seq, t, release in sequence]


def steady(first: int, last: int, release: str = "1.0") -> list[SinkFrame]:
    return frames(*((seq, seq / 10, release) for seq in range(first, last)))


def test_a_loop_without_gaps_lost_nothing() -> None:
    found = measure(steady(0, 50) + steady(50, 100, "1.1"), [Span(3, 8)])
    assert (found.frames, found.lost, found.lost_elsewhere) == (100, 0, 0)


def test_a_missing_number_during_an_update_is_lost_to_it() -> None:
    found = measure(steady(0, 40) + steady(43, 60), [Span(3, 8)])
    assert (found.lost, found.lost_elsewhere) == (3, 0)


def test_a_gap_that_begins_or_ends_in_an_update_belongs_to_it() -> None:
    loop = steady(0, 40) + steady(45, 60)
    assert measure(loop, [Span(0, 3.95)]).lost == 5
    assert measure(loop, [Span(4.45, 5)]).lost == 5
    assert measure(loop, [Span(4.1, 4.2)]).lost == 5


def test_a_missing_number_elsewhere_is_counted_there() -> None:
    found = measure(steady(0, 10) + steady(12, 60), [Span(3, 8)])
    assert (found.lost, found.lost_elsewhere) == (0, 2)


def test_the_longest_gap_is_that_around_a_swap() -> None:
    late = [SinkFrame(each.seq, each.t + 0.4, "1.1", 4.0) for each in steady(50, 100)]
    before = [SinkFrame(each.seq, each.t, "1.0", 4.0) for each in steady(0, 50)]
    assert round(measure(before + late, []).longest_gap_ms) == 500
    # Far from any swap a gap is not the swap's.
    apart = [*steady(0, 10), SinkFrame(10, 5.0, "1.0", 4.0), SinkFrame(11, 9.0, "1.0", 4.0)]
    assert measure(apart, []).longest_gap_ms == 0


def test_steady_times_leave_updates_out() -> None:
    slow = [SinkFrame(1, 5.0, "1.0", 90.0)]
    found = measure([SinkFrame(0, 1.0, "1.0", 4.0), *slow], [Span(4, 6)])
    assert found.steady_ms == [4.0]
    assert percentile([], 0.99) == 0


def test_a_rotated_sink_is_read_in_order(tmp_path: Path) -> None:
    def line(seq: int) -> str:
        return json.dumps({"seq": seq, "t": seq / 10, "release": "1.0", "ms": 4.0}) + "\n"

    (tmp_path / "frames.jsonl.1").write_text(line(0) + line(1))
    (tmp_path / "frames.jsonl").write_text(line(2) + '{"seq": 3, "t"')
    assert [each.seq for each in read_sink(tmp_path)] == [0, 1, 2]


def rollout(state: api.RolloutState, percent: float = 20) -> api.RolloutInfo:
    failed = state == "halted"
    stage = api.StageInfo(
        index=0, percent=percent, state="failed" if failed else "passed", devices=1,
        healthy=int(not failed), failed=int(failed), undecided=0, pending=0,
        verdict="fail" if failed else "pass", reason="",
    )  # fmt: skip
    return api.RolloutInfo(
        id="r", model="shapes", release="1.2", state=state, recall=False, reason="as it is",
        created=0.0, finished=1.0, stages=(stage,),
    )  # fmt: skip


def deployment(
    updated: float, verdict: Verdict, phase: Phase = Phase.REFUSED
) -> api.DeploymentInfo:
    return api.DeploymentInfo(
        id="d", rollout="r", device="cam-1", stage=0, release="1.2", phase=phase, verdict=verdict,
        silent=False, assigned=0.0, updated=updated,
    )  # fmt: skip


def test_a_release_is_stopped_by_the_first_board_that_said_so() -> None:
    slow = Verdict(code="latency", reason="5.5 times as long", stopped_in=Phase.PREFLIGHT)
    worse = Verdict(code="fidelity", reason="boxes moved", stopped_in=Phase.SHADOW)
    row = release_row(rollout("halted"), [deployment(9, worse), deployment(3, slow)])
    assert (row["stopped_by"], row["stopped_in"]) == ("latency", "preflight")
    assert (row["verdict"], row["stage"], row["reason"]) == ("halted", 20, "5.5 times as long")


def test_fidelity_is_accuracy_to_those_who_read_the_summary() -> None:
    worse = Verdict(code="fidelity", reason="boxes moved", stopped_in=Phase.SHADOW)
    assert release_row(rollout("halted"), [deployment(1, worse)])["stopped_by"] == "accuracy"


def test_a_completed_release_was_stopped_by_nobody() -> None:
    slow = Verdict(code="latency", reason="once", stopped_in=Phase.PREFLIGHT)
    row = release_row(rollout("completed", 100), [deployment(1, slow)])
    assert (row["verdict"], row["stopped_by"], row["stopped_in"]) == ("completed", None, None)
