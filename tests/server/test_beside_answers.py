"""What runs beside the answers: who was seen is written in parts, and a look is waited for."""

from __future__ import annotations

import threading
import time

import pytest
from sqlmodel import select

from kedge_server import scheduler
from kedge_server.database import transaction
from kedge_server.devices import intake
from kedge_server.devices.tables import DeviceRow
from kedge_server.events import kinds
from kedge_server.events.tables import EventRow
from kedge_shared.phases import Phase
from tests.sim.world import World
from tests.waiting import PATIENCE


@pytest.fixture
def fleet(running: World, monkeypatch: pytest.MonkeyPatch) -> World:
    for at in range(5):
        running.enrol(f"cam-{at}")
    running.context.index.take_seen()
    for at in range(5):
        running.context.index.saw(f"cam-{at}")
    monkeypatch.setattr(scheduler, "_SEEN_AT_ONCE", 2)
    return running


def seen(fleet: World) -> int:
    with transaction(fleet.context.engine) as session:
        return sum(each is not None for each in session.exec(select(DeviceRow.last_seen)))


def test_who_was_seen_is_written_in_parts_with_pauses_between(
    fleet: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def pause(_: threading.Event, seconds: float | None = None) -> bool:
        assert seconds is not None
        assert 0 < seconds <= fleet.context.settings.seen_seconds / 2
        written.append(seen(fleet))
        return False

    monkeypatch.setattr(threading.Event, "wait", pause)
    before = seen(fleet)
    scheduler.seen(fleet.context)
    monkeypatch.undo()
    assert before == 0
    assert written == [2, 4]
    assert seen(fleet) == 5


def test_a_server_that_stops_writes_whom_it_has_seen_at_once(fleet: World) -> None:
    fleet.context.stopping.set()
    fleet.context.settings.seen_seconds = 3600  # longer than any test may take
    scheduler.seen(fleet.context)
    assert seen(fleet) == 5


def test_what_could_not_be_written_is_kept(fleet: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.context.stopping.set()
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "write_seen", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scheduler.seen(fleet.context)
    assert sorted(fleet.context.index.take_seen()) == [f"cam-{at}" for at in range(5)]


def test_who_hurries_waits_for_the_look_that_is_under_way(running: World) -> None:
    follower = running.context.follower
    follower.follow()
    hurried = threading.Thread(target=follower.hurry)
    with follower._lock:
        hurried.start()
        hurried.join(0.05)
        assert hurried.is_alive(), "what that look hears of was not there yet"
    hurried.join(PATIENCE)
    assert not hurried.is_alive()


def test_a_batch_tells_of_each_board_in_the_order_of_its_reports(running: World) -> None:
    running.publish("1.0", 10)
    boards = [running.enrol(f"cam-{at}") for at in range(3)]
    running.roll_out("1.0")
    running.tick()
    for each in boards:
        each.poll()
    sent = [intake.Sent(each.name, [each.report(Phase.CONFIRMED)]) for each in reversed(boards)]
    with transaction(running.context.engine) as session:
        intake.take(session, sent, time.time())
    with transaction(running.context.engine) as session:
        told = select(EventRow).where(EventRow.kind == kinds.DEVICE[Phase.CONFIRMED])
        rows = session.exec(told.order_by(EventRow.id)).all()  # type: ignore[arg-type]
    assert [each.subject for each in rows] == ["cam-2", "cam-1", "cam-0"]
