"""``kill -9`` of a real agent's processes at random moments, again and again."""

from __future__ import annotations

import itertools
import random
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.chaos_board import Record, Whole, check_journal, examine
from benchmarks.chaos_fleet import Operator, fleet
from demo.processes import Processes
from demo.summary import read_sink
from kedge_shared.phases import TERMINAL, Phase
from tests.sim.real_board import RealBoard, wait_until
from tests.sim.real_builds import DEVICE_CLASS, pictures

VICTIMS = (
    ("updater",), ("runner",), ("preflight",), ("updater", "runner"), ("supervisor",),
)  # fmt: skip
_FPS = 8
#: How long it took is told; only what never comes is a finding.
_PATIENCE_SECONDS = 300.0
_UPDATE_SECONDS = 600.0
#: Of one update; more of them in probation would rightly be taken for a crash loop.
_MOST_RUNNERS = 2
_MOST_BLOWS = 4
_LONGEST_DELAY = 5.0
#: From a confirmation until what nobody needs is gone, at the most.
_SWEEP_SECONDS = 0.5
_SETTINGS = {
    "poll_seconds": 0.2, "telemetry_seconds": 5, "preflight_rounds": 4,
    "download_kib_per_second": 1024, "shadow": {"seconds": 0.5},
    "probation": {"seconds": 1, "max_seconds": 60, "min_frames": 4},
}  # fmt: skip


class Kills:
    """One board under fire.

    Args:
        home: For everything.
        operator: Keeps it busy.
        whole: What need not be sent again.
        record: Takes what is found.
        seed: Of the moments.
    """

    def __init__(
        self, home: Path, operator: Operator, whole: Whole, record: Record, seed: int
    ) -> None:
        self._operator, self._whole, self._record = operator, whole, record
        self._rng = random.Random(seed)
        self._victims = itertools.cycle(VICTIMS)
        logs = home / "logs"
        logs.mkdir()
        self._processes = Processes(logs)
        source = {"kind": "folder", "path": str(_scenes(home / "scenes")), "fps": _FPS}
        settings = {**_SETTINGS, "source": source, "tags": {"board": operator.board}}
        self._board = RealBoard(self._processes, home / "board", operator.board, settings)

    def run(self) -> None:
        """Kills until as many as planned were survived, and checks after each."""
        board, record = self._board, self._record
        with self._processes:
            board.configure(self._operator.world.url, self._operator.world.trust.root, DEVICE_CLASS)
            board.start(self._operator.token())
            if not wait_until(board.desk_answers, _PATIENCE_SECONDS):
                raise RuntimeError(f"the agent does not come up:\n{board.log()}")
            self._operator.go_on()
            self._settle()
            while record.done < record.planned:
                self._operator.go_on()
                self._episode(min(self._rng.randint(1, _MOST_BLOWS), record.planned - record.done))
                self._settle()

    def lost_frames(self) -> int:
        """Returns frames that are missing at the sink within the life of a runner."""
        frames = read_sink(self._board.folder)
        gaps = (b.seq - a.seq - 1 for a, b in itertools.pairwise(frames))
        return sum(each for each in gaps if each > 0)

    def _episode(self, blows: int) -> None:
        runners = 0
        for _ in range(blows):
            victims = next(self._victims)
            runners += any(each in {"runner", "supervisor"} for each in victims)
            if runners > _MOST_RUNNERS:
                victims = ("updater",)
            if victims == ("preflight",):
                wait_until(lambda: "preflight" in self._board.pids(), _LONGEST_DELAY)
                time.sleep(self._rng.uniform(0, 1))
            else:
                time.sleep(self._rng.uniform(0, _LONGEST_DELAY))
            self._blow(*victims)
            self._record.show()

    def _blow(self, *victims: str) -> None:
        board, record = self._board, self._record
        killed = board.kill(*victims)
        if not killed:  # a preflight that had ended
            killed = board.kill("updater")
        at, began = time.time(), time.monotonic()
        record.done += 1
        record.again += self._whole.settle(board.state_dir)
        if "supervisor" in killed:
            wait_until(lambda: set(board.pids()) <= {"supervisor"}, 10)
            board.start()
        if not wait_until(lambda: self._is_back(killed, at), _PATIENCE_SECONDS):
            record.note("engine", f"not back after {victims} ended: {board.pids()}\n{board.log()}")
        record.recoveries.append(time.monotonic() - began)
        if wrong := check_journal(board.state_dir):
            record.note("state", wrong)
        examine(board.state_dir, self._operator.signed, record)

    def _is_back(self, killed: dict[str, int], at: float) -> bool:
        """Says whether those that were killed live and work again, and a signed engine serves."""
        board, now = self._board, self._board.pids()
        gone = [role for role in ("updater", "runner") if role in killed or "supervisor" in killed]
        if any(now.get(role) in {None, killed.get(role)} for role in gone):
            return False
        if "updater" in gone and not board.desk_answers():
            return False
        runner = board.runner()
        if runner is None or runner.active is None or not board.serves(at):
            return False
        return runner.active.engine in self._operator.signed

    def _settle(self) -> None:
        """Lets the update come to its end; an operator begins it again where a kill ended it."""
        record, operator = self._record, self._operator
        until = time.monotonic() + _UPDATE_SECONDS
        while not operator.ended():
            failed = operator.failed()
            if failed is not None and self._rests(failed.id):
                if failed.verdict.cause != "environment":
                    record.note("blamed", f"{failed.phase.value}: {failed.verdict}")
                record.retried += 1
                operator.retry()
            if time.monotonic() > until:
                record.note("stuck", f"update did not end\n{self._board.log()}")
                operator.give_up()
                return
            time.sleep(0.1)
        record.updates += 1
        serving = self._board.state().active
        if not wait_until(lambda: self._serves(serving), _PATIENCE_SECONDS):
            record.note("engine", f"the loop does not serve what was confirmed: {serving}")
        record.again += self._whole.swept()
        time.sleep(_SWEEP_SECONDS)
        self._whole.settle(self._board.state_dir)

    def _serves(self, serving: object) -> bool:
        runner = self._board.runner()
        return runner is not None and runner.active == serving and runner.previous is None

    def _rests(self, deployment: str) -> bool:
        state = self._board.state().deployment
        final = TERMINAL - {Phase.CONFIRMED}
        return state is not None and state.id == deployment and state.phase in final


def _scenes(folder: Path) -> Path:
    folder.mkdir()
    for at, each in enumerate(pictures(12, seed=9)):
        image = cv2.imdecode(np.frombuffer(each.png, np.uint8), cv2.IMREAD_COLOR)
        cv2.imwrite(str(folder / f"{at:02}.jpg"), np.asarray(image))
    return folder


def run(home: Path, record: Record, seed: int) -> None:
    """Runs the trial; what was found until an interruption is in the record."""
    with fleet(home) as (operator, traffic):
        kills = Kills(home, operator, Whole(traffic), record, seed)
        try:
            kills.run()
        finally:
            record.lost = kills.lost_frames()
