"""Updates as the board lives them: real updater, real server, a runner that does as it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import msgspec
import pytest

from kedge_agent import facts
from kedge_agent.decisions import MAX_ATTEMPTS
from kedge_agent.evidence.summary import Proof
from kedge_agent.journal import Journal
from kedge_agent.local_protocol import Failed, LoadCandidate, Ratio, Swap
from kedge_agent.state import State
from kedge_shared import api
from kedge_shared.phases import Phase
from kedge_shared.protocol import Verdict
from tests.shared import samples
from tests.sim import world
from tests.sim.board import SimBoard, settled
from tests.sim.runner import DISAGREE
from tests.sim.world import World


def follow(world: World, board: SimBoard, release: str = "1.1", counter: int = 11) -> State:
    """Rolls a release out and returns the board's state when it has settled."""
    world.publish(release, counter)
    rollout = world.roll_out(release)
    mine = {each.id for each in world.operator.rollout_deployments(rollout.id)}
    state = board.run(lambda s: settled(s) and s.deployment is not None and s.deployment.id in mine)
    world.tick()
    return state


def told(world: World, release: str = "1.1") -> api.DeploymentInfo:
    """What the server knows of the board's last deployment of a release."""
    return next(
        each for each in world.operator.device_deployments("cam-1") if each.release == release
    )


def serves(board: SimBoard) -> str:
    """What runner, journal and the file for the next start agree on."""
    slots = json.loads((board.folder / "state" / "slots.json").read_text())
    assert board.runner.active is not None
    assert board.state.active is not None
    found = {board.runner.active.release, board.state.active.release, slots["active"]["release"]}
    assert len(found) == 1, found
    return found.pop()


def test_a_runtime_that_was_lost_is_told_and_held_against_nobody(
    running: World, board: SimBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    monkeypatch.setattr(facts, "gather", lambda: replace(samples.facts(), runtimes={}))
    state = board.run(
        lambda s: settled(s) and s.deployment is not None and s.deployment.phase is Phase.REFUSED
    )
    running.tick()
    found = told(running)
    assert found.phase is Phase.REFUSED
    assert (found.verdict.code, found.verdict.cause) == ("misfit", "environment")
    assert found.verdict.reason == "runtime onnxruntime is not on the board"
    assert state.quarantine == {}
    assert serves(board) == "1.0"


def test_first_and_second_release(running: World, board: SimBoard) -> None:
    board.install()
    assert serves(board) == "1.0"
    state = follow(running, board)
    assert serves(board) == "1.1"
    assert told(running).phase is Phase.CONFIRMED
    assert state.previous is not None
    assert state.previous.release == "1.0", "what to go back to stays on the disk"
    assert board.runner.previous is None, "and leaves memory"
    assert board.runner.asked[-4:] == ["LoadCandidate", "StartShadow", "Swap", "Drop"]


def test_old_files_are_swept_after_a_confirmation(running: World, board: SimBoard) -> None:
    board.install()
    follow(running, board, "1.1", 11)
    follow(running, board, "1.2", 12)
    state = board.state
    kept = {each.name for each in (board.folder / "state" / "blobs").iterdir()}
    assert state.active is not None
    assert state.previous is not None
    assert {state.active.engine, state.previous.engine} <= kept
    assert len(kept) == 8  # two builds of manifest, engine, references; policy, golden frame


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"label_score": 0.5}, "accuracy"),
        ({"fidelity": 0.3}, "fidelity"),
        ({"zero_scores": True}, "accuracy"),
        ({"non_finite": 1}, "crash"),
        ({"ratio": Ratio(median=1.8, low=1.6, high=2.0, rounds=40)}, "latency"),
        ({"ok": False, "error": "engine crashed its process (SIGSEGV)"}, "crash"),
        ({"agreement": 0.2, "label_score": 0.9}, "accuracy"),
    ],
)
def test_harm_in_preflight(
    running: World, board: SimBoard, changes: dict[str, object], code: str
) -> None:
    board.install()
    before = list(board.runner.asked)
    board.preflight = msgspec.structs.replace(board.preflight, **changes)
    state = follow(running, board)
    assert serves(board) == "1.0"
    assert board.runner.asked == before, "the live loop was not touched"
    row = told(running)
    assert (row.phase, row.verdict.code, row.verdict.cause) == (Phase.REFUSED, code, "harm")
    assert row.verdict.stopped_in is Phase.PREFLIGHT
    assert len(state.quarantine) == 1
    running.tick()
    assert running.operator.rollouts()[0].state == "halted"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ratio": Ratio(median=1.8, low=1.2, high=2.9, rounds=320)}, "undecided"),
        ({"ok": False, "short": True, "error": "killed"}, "memory"),
    ],
)
def test_a_busy_board_throws_nothing_out(
    running: World, board: SimBoard, changes: dict[str, object], code: str
) -> None:
    board.install()
    good = board.preflight
    board.preflight = msgspec.structs.replace(good, **changes)
    state = follow(running, board)
    row = told(running)
    assert (row.phase, row.verdict.code, serves(board)) == (Phase.REFUSED, code, "1.0")
    assert state.quarantine == {}
    running.tick()
    newest = running.operator.rollouts()[0]
    assert (newest.state, newest.stages[0].undecided) == ("running", 1)
    running.operator.change_rollout(newest.id, "halt")
    board.preflight = good
    rollout = running.roll_out("1.1")
    mine = running.operator.rollout_deployments(rollout.id)[0].id
    board.run(lambda s: settled(s) and s.deployment is not None and s.deployment.id == mine)
    assert serves(board) == "1.1", "a quiet moment is enough"


def test_what_was_thrown_out_is_not_taken_again_by_itself(running: World, board: SimBoard) -> None:
    board.install()
    board.preflight = msgspec.structs.replace(board.preflight, label_score=0.1)
    follow(running, board)
    running.tick()
    board.preflight = msgspec.structs.replace(board.preflight, label_score=0.95)
    count = len(board.preflights)
    rollout = running.roll_out("1.1")
    mine = running.operator.rollout_deployments(rollout.id)[0].id
    board.run(lambda s: settled(s) and s.deployment is not None and s.deployment.id == mine)
    row = told(running)
    assert (row.phase, row.verdict.code) == (Phase.REFUSED, "quarantined")
    assert "label score" in row.verdict.reason
    assert len(board.preflights) == count
    assert serves(board) == "1.0"


def test_disagreement_in_shadow(running: World, board: SimBoard) -> None:
    board.install()
    board.runner.before = DISAGREE
    follow(running, board)
    row = told(running)
    assert (row.phase, row.verdict.code) == (Phase.REFUSED, "accuracy")
    assert row.verdict.stopped_in is Phase.SHADOW
    assert serves(board) == "1.0"
    assert "Swap" not in board.runner.asked[3:]


@pytest.mark.parametrize(
    ("after", "code", "said"),
    [
        (DISAGREE, "accuracy", "misses 80% of what the older engine sees"),
        ({"new_p95_ms": 900.0, "new_ms": 6.0}, "latency", None),
        ({"new_ms": 20.0, "proof": Proof(slow=5.0)}, "latency", "live frames take 20.0 ms"),
        ({"errors": 1}, "crash", "failed on 1 live frames"),
    ],
)
def test_harm_in_probation_rolls_back(
    running: World, board: SimBoard, after: object, code: str, said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    board.install()
    if isinstance(after, dict):
        after = msgspec.structs.replace(board.runner.after, **after)
    board.runner.after = after  # type: ignore[assignment]
    if code == "latency" and said is None:
        ten = replace(samples.manifest().budgets, latency_p95_ms=10.0)
        monkeypatch.setattr(world, "write_build", partial(world.write_build, budgets=ten))
    state = follow(running, board)
    row = told(running)
    assert (row.phase, row.verdict.code, row.verdict.cause) == (Phase.ROLLED_BACK, code, "harm")
    assert row.verdict.stopped_in is Phase.PROBATION
    assert said is None or said in row.verdict.reason
    assert serves(board) == "1.0"
    assert board.runner.previous is None
    assert state.quarantine


def test_the_runner_falling_back_by_itself_is_harm(running: World, board: SimBoard) -> None:
    board.install()
    board.runner.falls_back_in_probation = "engine gives NaN"
    follow(running, board)
    row = told(running)
    assert (row.phase, row.verdict.code) == (Phase.ROLLED_BACK, "crash")
    assert "NaN" in row.verdict.reason
    assert serves(board) == "1.0"


def test_a_swap_that_is_not_answered_is_undone(running: World, board: SimBoard) -> None:
    board.install()
    board.runner.fails = {Swap: Failed("crash", "no frame was answered after the switch")}
    follow(running, board)
    row = told(running)
    assert (row.phase, row.verdict.stopped_in) == (Phase.ROLLED_BACK, Phase.SWAPPING)
    assert serves(board) == "1.0"


@pytest.mark.parametrize("code", ["memory", "disk", "misfit"])
def test_trouble_of_the_board_is_not_the_engines(
    running: World, board: SimBoard, code: str
) -> None:
    board.install()
    board.runner.fails = {LoadCandidate: Failed(code, "no room")}
    state = follow(running, board)
    row = told(running)
    assert (row.phase, row.verdict.code, row.verdict.cause) == (Phase.REFUSED, code, "environment")
    assert state.quarantine == {}
    running.tick()
    assert running.operator.rollouts()[0].state == "running", "neither success nor failure"
    assert serves(board) == "1.0"


def test_too_little_evidence_keeps_the_old_engine(running: World, board: SimBoard) -> None:
    board.install()
    thin = msgspec.structs.replace(board.runner.after, tracks=3, proof=Proof(safe=0.2, sighted=0.9))
    board.runner.before = board.runner.after = thin
    board.patience = 1.5
    state = follow(running, board)
    row = told(running)
    assert (row.phase, row.verdict.code, row.verdict.cause) == (
        Phase.ROLLED_BACK, "undecided", "undecided",
    )  # fmt: skip
    assert state.quarantine == {}
    assert serves(board) == "1.0"


def test_a_halt_elsewhere_takes_a_confirmed_board_back(running: World, board: SimBoard) -> None:
    board.install()
    follow(running, board)
    assert serves(board) == "1.1"
    rollout = running.operator.rollouts()[0]
    running.operator.change_rollout(rollout.id, "halt")
    board.run(lambda s: s.active is not None and s.active.release == "1.0" and settled(s))
    assert serves(board) == "1.0"
    assert board.state.quarantine == {}, "nothing was wrong with it here"


#: A quick machine does not stay long enough in one of them to be seen there.
BEYOND_DOWNLOADING = {Phase.VERIFYING, Phase.PREFLIGHT, Phase.SHADOW, Phase.ARMED, Phase.SWAPPING,
                      Phase.PROBATION}  # fmt: skip


def test_an_update_goes_on_and_ends_while_the_server_is_away(
    running: World, board: SimBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx

    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    real = httpx.AsyncClient.send

    async def away(*_: object, **__: object) -> object:
        raise httpx.ConnectError("away")

    def server_goes_when_all_is_here(state: State) -> bool:
        if state.deployment is not None and state.deployment.phase in BEYOND_DOWNLOADING:
            monkeypatch.setattr(httpx.AsyncClient, "send", away)
        return settled(state) and state.active is not None and state.active.release == "1.1"

    board.run(server_goes_when_all_is_here)
    assert serves(board) == "1.1"
    assert told(running).phase is not Phase.CONFIRMED
    monkeypatch.setattr(httpx.AsyncClient, "send", real)
    board.rest()
    assert told(running).phase is Phase.CONFIRMED, "the report waited in the outbox"


@pytest.mark.parametrize(
    ("phase", "ends"),
    [
        (Phase.DOWNLOADING, Phase.CONFIRMED),
        (Phase.VERIFYING, Phase.CONFIRMED),
        (Phase.PREFLIGHT, Phase.CONFIRMED),
        (Phase.SHADOW, Phase.CONFIRMED),
        (Phase.ARMED, Phase.CONFIRMED),
        (Phase.SWAPPING, Phase.ROLLED_BACK),
    ],
)
def test_a_start_in_the_midst_of_an_update(
    running: World, board: SimBoard, phase: Phase, ends: Phase
) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    board.run(lambda s: s.deployment is not None and s.deployment.phase is Phase.PREFLIGHT)
    stand_in(board, phase)
    state = board.run()
    assert state.deployment is not None
    assert state.deployment.phase is ends
    assert serves(board) == ("1.1" if ends is Phase.CONFIRMED else "1.0")


def stand_in(board: SimBoard, phase: Phase, **changes: object) -> None:
    """Has the journal say that the updater ended in a phase."""
    journal = Journal(board.folder / "state")
    deployment = journal.state.deployment
    assert deployment is not None
    journal.save(
        msgspec.structs.replace(
            journal.state,
            deployment=msgspec.structs.replace(deployment, phase=phase, **changes),
        )
    )
    journal.close()


def test_an_update_that_takes_the_updater_down_each_time_is_given_up(
    running: World, board: SimBoard
) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    board.run(lambda s: s.deployment is not None and s.deployment.phase is Phase.PREFLIGHT)
    count = len(board.preflights)
    stand_in(board, Phase.PREFLIGHT, attempts=MAX_ATTEMPTS)
    state = board.run()
    assert state.deployment is not None
    assert state.deployment.phase is Phase.REFUSED
    assert "interrupted" in state.deployment.verdict.reason
    assert len(board.preflights) == count
    board.rest()
    assert told(running).verdict == Verdict(
        code="crash", reason=state.deployment.verdict.reason, cause="environment",
        stopped_in=Phase.PREFLIGHT,
    )  # fmt: skip


def test_a_build_the_server_lost_does_not_keep_newer_ones_away(
    running: World, board: SimBoard
) -> None:
    board.install()
    folder = running.publish("1.1", 11)
    from kedge_shared.ids import sha256_hex

    engine = sha256_hex((folder / "x86-onnxruntime" / "model.onnx").read_bytes())
    (running.home / "server" / "artifacts" / engine[:2] / engine).unlink()
    running.roll_out("1.1")
    state = board.run(lambda s: s.deployment is not None and s.deployment.phase is Phase.REFUSED)
    assert state.deployment is not None
    assert state.deployment.verdict.code == "network"
    running.operator.change_rollout(running.operator.rollouts()[0].id, "halt")
    follow(running, board, "1.2", 12)
    assert serves(board) == "1.2"


def test_the_updater_imports_no_runtime() -> None:
    import subprocess
    import sys

    code = (
        "import sys, kedge_agent.updater, kedge_agent.supervisor;"
        "print([m for m in ('numpy','onnxruntime','openvino','cv2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
