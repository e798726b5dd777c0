"""Boards whose clock starts in 1970 or jumps by ten years: nothing is lost, and it is said."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import pytest
from tuf.api.metadata import Metadata

from kedge_agent.clock import WRITTEN, is_behind, lower_bound, trusted_now
from kedge_agent.journal import Journal
from kedge_agent.network.window import window_open
from kedge_agent.tuf_client import ImageRepository
from kedge_shared.errors import TrustError
from kedge_shared.windows import WindowSpec
from tests.sim.board import SimBoard, settled
from tests.sim.world import World

YEARS = 365.25 * 86400
DAYS = 86400


@pytest.mark.parametrize(
    ("clock", "proven", "now", "behind"),
    [
        (0.0, 0, WRITTEN, True),
        (-1.0, 0, WRITTEN, True),
        (0.0, WRITTEN + 5, WRITTEN + 5, True),
        (WRITTEN + 9.9, WRITTEN + 5, WRITTEN + 9, False),
        (WRITTEN + 10 * YEARS, WRITTEN + 5, int(WRITTEN + 10 * YEARS), False),
    ],
)
def test_rows(clock: float, proven: int, now: int, behind: bool) -> None:
    assert trusted_now(clock, proven) == now
    assert is_behind(clock, proven) is behind
    assert lower_bound(proven) <= now


def test_this_version_was_written_before_it_runs() -> None:
    assert time.time() > WRITTEN


def test_a_board_in_1970_installs_and_learns_the_time(running: World, board: SimBoard) -> None:
    board.clock = lambda: 3600.0
    board.install()
    assert board.state.newest_time == pytest.approx(time.time(), abs=600)


@pytest.mark.parametrize("years", [10, -10])
def test_a_jump_of_ten_years_harms_nothing_and_leaves_no_trace(
    running: World, board: SimBoard, capsys: pytest.CaptureFixture[str], years: int
) -> None:
    board.install()
    running.publish("1.1", 11)
    running.roll_out("1.1")
    board.clock = lambda: time.time() + years * YEARS
    if years > 0:
        before = board.state
        state = board.rest()
        assert (state.active, state.counter) == (before.active, before.counter)
        assert board.runner.active is not None
        assert board.runner.active.release == "1.0"
        assert state.newest_time == before.newest_time, "the clock alone proves nothing"
        assert "check this board's clock" in capsys.readouterr().err
        board.clock = time.time
    state = board.run(lambda s: settled(s) and s.active is not None and s.active.release == "1.1")
    assert state.quarantine == {}


def test_what_is_past_for_certain_stays_past_on_a_clock_that_fell_back(
    running: World, board: SimBoard, capsys: pytest.CaptureFixture[str]
) -> None:
    """Metadata that expired is not made good by pulling the battery."""
    board.install()
    journal = Journal(board.folder / "state")
    proven = int(time.time() + 300 * DAYS)
    journal.save(msgspec.structs.replace(journal.state, newest_time=proven))
    journal.close()
    board.clock = lambda: 0.0
    running.publish("1.1", 11)
    running.roll_out("1.1")
    state = board.rest()
    assert state.active is not None
    assert state.active.release == "1.0"
    assert "is not to be trusted" in capsys.readouterr().err


@pytest.fixture
def repository(running: World, tmp_path: Path) -> ImageRepository:
    token = running.enrol("cam-9").http.headers["Authorization"].removeprefix("Bearer ")
    return ImageRepository(running.url, token, tmp_path / "tuf", running.trust.root)


def expiries(repository: ImageRepository) -> dict[str, float]:
    folder = repository._metadata._folder
    roles = ("root", "timestamp", "snapshot", "targets")
    return {
        each: Metadata.from_file(str(folder / f"{each}.json")).signed.expires.timestamp()
        for each in roles
    }


def test_expiry_is_judged_by_the_time_that_is_given(repository: ImageRepository) -> None:
    repository.refresh(time.time())
    ends = expiries(repository)
    repository.refresh(ends["timestamp"] - 1)
    with pytest.raises(TrustError, match="expired") as refused:
        repository.refresh(ends["timestamp"] + 1)
    assert refused.value.code == "expired"
    repository.close()


@pytest.mark.parametrize("offline", ["root", "targets"])
def test_grace_is_for_the_online_roles_only(repository: ImageRepository, offline: str) -> None:
    repository.refresh(time.time())
    ends = expiries(repository)
    repository.refresh(ends["timestamp"] + 3600, grace_seconds=2 * 3600)
    with pytest.raises(TrustError, match="expired"):
        repository.refresh(ends["timestamp"] + 3 * 3600, grace_seconds=2 * 3600)
    with pytest.raises(TrustError, match="expired"):
        repository.refresh(ends[offline] + 1, grace_seconds=10 * YEARS)
    repository.close()


def test_online_keys_cannot_put_a_board_beyond_what_the_builders_signed(
    repository: ImageRepository,
) -> None:
    now = int(time.time())
    repository.refresh(now)
    ends = min(expiries(repository)[each] for each in ("root", "targets"))
    assert repository.proves(0) == pytest.approx(now, abs=600)
    assert repository.proves(int(ends) - 1) == int(ends) - 1
    assert repository.proves(int(ends) + 1) == pytest.approx(now, abs=600)
    repository.close()


def test_a_clock_a_little_behind_the_servers_still_tells_a_window() -> None:
    """Clocks differ by seconds; one that woke up in 1970, or a day ago, tells nothing."""
    always = WindowSpec(begins="00:00", ends="23:59")
    noon = datetime(2026, 11, 25, 12, tzinfo=timezone.utc).timestamp()
    for behind, tells in ((-60, True), (0, True), (2, True), (600, True), (1200, False)):
        opening = window_open(always, noon - behind, noon, timezone.utc)
        assert opening.open is tells, behind
        assert is_behind(noon - behind, int(noon)) is not tells
