"""The parts that polls and reports go through: pace, index, batches, ledger, intervals, slots."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge_server.database import transaction
from kedge_server.devices import ledger, pace
from kedge_server.devices.batches import Batches
from kedge_server.devices.index import PollIndex
from kedge_server.devices.ledger import Ledger
from kedge_server.errors import BusyError
from kedge_shared import histogram
from kedge_shared.phases import Phase
from kedge_shared.protocol import Window
from tests.server.both import database  # noqa: F401
from tests.sim.world import World, world
from tests.waiting import PATIENCE, wait_for


@given(st.floats(0, 2e9), st.floats(0.2, 86400), st.text(min_size=1))
def test_a_device_is_sent_to_its_place_after_half_an_interval(
    now: float, interval: float, name: str
) -> None:
    place = pace.phase(name)
    wait = pace.next_poll(now, interval, place)
    assert 0.499 * interval <= wait <= 1.501 * interval
    off = (now + wait - place * interval) % interval
    assert min(off, interval - off) < 1e-3 * interval + 1e-5


def test_a_herd_is_spread_within_one_interval() -> None:
    found = Counter(
        int(pace.next_poll(1000.0, 60, pace.phase(f"cam-{each}"))) for each in range(6000)
    )
    assert max(found.values()) < 2 * 6000 / 60
    assert min(found) >= 30
    assert max(found) < 90


def test_the_busy_are_spread() -> None:
    assert pace.busy_seconds(1000, 100, 0) == 11
    assert pace.busy_seconds(1000, 100, 0.99) == 20
    assert pace.busy_seconds(1, 0, 0) > 0


@given(st.lists(st.integers(0, 30), max_size=60))
def test_a_ledger_is_a_set(numbers: list[int]) -> None:
    found, seen = Ledger(), set[int]()
    for each in numbers:
        assert found.has(each) == (each in seen)
        found = ledger.read(ledger.write(found.with_(each)))
        seen.add(each)
    assert {each for each in range(40) if found.has(each)} == seen


def test_a_ledger_of_reports_in_order_is_one_range_and_of_leaps_is_bounded() -> None:
    found = Ledger()
    for each in range(300):
        found = found.with_(each)
    assert ledger.write(found) == "0-299"
    for each in range(1000, 3000, 2):
        found = found.with_(each)
    assert len(found.ranges) == ledger.MOST_RANGES
    assert all(found.has(each) for each in range(1000, 3000, 2)), "none is taken twice"


def test_what_changed_meanwhile_is_not_kept() -> None:
    index = PollIndex()
    index.add_device("cam-1", "hash", "key")
    before = index.generation
    index.forget(["cam-2"])
    index.put("cam-1", 5, time.time() + 100, 60, before)
    place = index.place("cam-1")
    assert place is not None
    assert not place.known(time.time())
    index.put("cam-1", 5, time.time() + 100, 60, index.generation)
    assert place.known(time.time())
    assert not place.known(time.time() + 200)
    index.add_device("cam-1", "other", "key")
    assert index.device_of("hash") is None
    assert index.device_of("other") == "cam-1"
    index.remove_device("cam-1")
    assert index.device_of("other") is None


def test_what_comes_meanwhile_is_one_batch_and_each_gets_its_own() -> None:
    sizes: list[int] = []
    hold = threading.Event()

    def work(asked: Sequence[int]) -> Sequence[int | Exception]:
        sizes.append(len(asked))
        hold.wait(PATIENCE)
        if 13 in asked and 99 in asked:
            raise RuntimeError("all of it")
        return [ValueError(str(each)) if each == 13 else 2 * each for each in asked]

    async def run() -> None:
        batches: Batches[int, int] = Batches("test", work, 10, 12)
        tasks = [asyncio.create_task(batches.do(each)) for each in (1, 2, 13, 3)]
        await asyncio.sleep(0.05)
        more = [asyncio.create_task(batches.do(each)) for each in range(20, 31)]
        await asyncio.sleep(0.05)
        late = asyncio.create_task(batches.do(40))
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError) as found:
            await batches.do(41)
        assert found.value.retry_after > 0
        hold.set()
        assert [await tasks[at] for at in (0, 1, 3)] == [2, 4, 6]
        with pytest.raises(ValueError, match="13"):
            await tasks[2]
        assert [await each for each in more] == [2 * each for each in range(20, 31)]
        assert await late == 80
        both = [asyncio.create_task(batches.do(each)) for each in (13, 99)]
        for each in both:
            with pytest.raises(RuntimeError, match="all of it"):
                await each
        assert await batches.do(5) == 10, "the next batch runs"
        batches.close()

    asyncio.run(run())
    assert sizes[:3] == [4, 10, 2], "at most ten, and nobody waits for a batch to fill"


def windowed(frames: int) -> Window:
    return Window(started=0, seconds=1, frames=frames, latency_ms=histogram.of([10.0]))


def test_windows_are_counted_each_once_and_only_the_newest_is_kept(running: World) -> None:
    from sqlmodel import select

    from kedge_server.devices.tables import LedgerRow, ReportRow

    device = running.enrol("cam-1")
    reports = [device.report(Phase.IDLE, window=windowed(100), deployment="") for _ in range(5)]
    assert device.send(reports[0]).json() == {"accepted": 1, "duplicates": 0}
    assert device.send(*reports[1:4]).json() == {"accepted": 3, "duplicates": 0}
    assert device.send(*reports).json() == {"accepted": 1, "duplicates": 4}
    assert device.send(*reversed(reports)).json() == {"accepted": 0, "duplicates": 5}
    (found,) = running.operator.devices()
    assert found.frames == 500
    with transaction(running.context.engine) as session:
        assert [each.taken for each in session.exec(select(LedgerRow))] == ["1-5"]
        kept = [each.seq for each in session.exec(select(ReportRow))]
    # The first was news: a board that had not said anything.
    assert kept == [1, 5]


def test_one_bad_request_of_a_batch_takes_no_other_with_it(running: World) -> None:
    from kedge_server.devices import intake

    good, bad = running.enrol("cam-1"), running.enrol("cam-2")
    forged = good.report(Phase.IDLE)
    sent = [intake.Sent("cam-1", [good.report(Phase.IDLE)]), intake.Sent("cam-2", [forged]),
            intake.Sent("cam-2", [bad.report(Phase.IDLE)])]  # fmt: skip
    with transaction(running.context.engine) as session:
        found = intake.take(session, sent, 5.0)
    assert found[0] == found[2] == intake.Taken(1, 0)
    assert "not to be trusted" in str(found[1])


def test_intervals_are_chosen_by_selectors(tmp_path: Path, database: str) -> None:  # noqa: F811
    rules = {"tag.site==lab": 5.0, "name==cam-2": 600.0}
    with world(tmp_path, poll_seconds=60.0, poll_rules=rules) as found:
        lab, slow, other = (
            found.enrol("cam-1", tags={"site": "lab"}), found.enrol("cam-2"), found.enrol("cam-3")
        )  # fmt: skip
        for device, interval in ((lab, 5), (slow, 600), (other, 60)):
            for _ in range(2):
                wait = float(device.poll().headers["x-kedge-next-poll"])
                assert 0.49 * interval <= wait <= 1.51 * interval


def test_a_download_without_a_slot_is_told_when_to_come_back(tmp_path: Path) -> None:
    with world(tmp_path, download_slots=1) as found:
        found.publish("1.0", 10)
        device = found.enrol("cam-1")
        url = f"/api/v1/artifacts/{held(found)}"
        assert device.http.get(url).status_code == 200
        until_free(found)
        found.context.slots.taken = 1
        full = device.http.get(url)
        assert (full.status_code, full.json()["error"]) == (503, "every download slot is taken")
        assert 5 <= int(full.headers["retry-after"]) < 15
        assert device.http.head(url).status_code == 200, "to look costs nothing"
        found.context.slots.taken = 0
        assert device.http.get(url).status_code == 200
        until_free(found)


def until_free(found: World) -> None:
    """The slot is given back when the last byte was sent, a moment after it has come."""
    wait_for(lambda: not found.context.slots.taken)


def held(found: World) -> str:
    root = found.home / "server" / "artifacts"
    return next(each.name for each in root.rglob("*") if each.is_file() and len(each.name) == 64)


def test_a_board_that_another_server_enrolled_is_known_at_once(running: World) -> None:
    """What another server commits is heard of when a stranger asks, not a second later."""
    from kedge_server.auth import token_hash
    from kedge_server.devices.tables import DeviceRow
    from kedge_server.replicas import changes

    running.enrol("cam-1")
    with transaction(running.context.engine) as session:
        row = session.get_one(DeviceRow, "cam-1")
        row.token_hash = token_hash("another")
        session.add(row)
        changes.note(session, "device", "cam-1")
    time.sleep(0.15)
    answer = httpx.get(
        f"{running.url}/api/v1/device/poll", headers={"Authorization": "Bearer another"}
    )
    assert answer.status_code == 200
