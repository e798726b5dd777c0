"""Events: told with what they tell of, in order, to whoever comes back for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Message

from kedge_server.database import transaction
from kedge_server.events import kinds as kinds_module
from kedge_server.events import service, stream
from kedge_server.events.stream import EventStream
from kedge_server.rollouts.stages import RolloutEvent, StageEvent
from kedge_shared.event_client import parse
from kedge_shared.events import EventInfo, matches
from kedge_shared.phases import Phase
from tests.sim.device import HARM
from tests.sim.world import World, world
from tests.waiting import PATIENCE


def emit(running: World, kind: str, subject: str = "x") -> None:
    with transaction(running.context.engine) as session:
        service.emit(session, kind, subject, {}, 1.0)


@contextmanager
def following(
    running: World, last: int | None = None, **params: Any
) -> Iterator[Iterator[EventInfo]]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with running.operator.http.stream(
        "GET", "/api/v1/events", headers=headers, params=params
    ) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield parse(answer.iter_lines())


def test_a_rollout_is_told_as_it_goes_and_again_to_whoever_comes_back(running: World) -> None:
    """One follower sees it live; another, cut off in its midst, misses and doubles nothing."""
    running.publish("1.0", 10)
    running.publish("1.1", 11)
    for at in range(2):
        running.enrol(f"cam-{at}")
    running.devices[1].refuses = lambda path: "1.1" in path
    with following(running) as live:
        rollout = running.roll_out("1.1", 50, 100)
        for _ in range(6):
            for each in running.devices:
                each.live()
            running.tick()
        seen: list[EventInfo] = []
        for event in live:
            seen.append(event)
            if event.kind == "rollout.halted":
                break
    kinds = [each.kind for each in seen]
    assert set(kinds) >= {"rollout.created", "gate.begun", "device.refused", "gate.failed"}
    assert kinds.index("rollout.created") > kinds.index("gate.begun") - 2
    assert seen[-1].subject == rollout.id
    assert seen[-1].data["release"] == "1.1"
    assert "cam-1: accuracy" in seen[-1].data["reason"]
    refused = next(each for each in seen if each.kind == "device.refused")
    assert (refused.subject, refused.data["code"]) == ("cam-1", HARM.code)
    assert [each.id for each in seen] == sorted({each.id for each in seen})
    half = seen[len(seen) // 2]
    with following(running, half.id) as again:
        later = [next(again) for _ in seen[len(seen) // 2 + 1 :]]
    assert later == seen[len(seen) // 2 + 1 :]
    with following(running, 0, kind=["rollout.*"], subject=rollout.id) as only:
        assert [next(only).kind, next(only).kind][0] == "rollout.created"


def test_a_browser_says_where_to_go_on_in_the_address(running: World) -> None:
    for at in range(3):
        emit(running, "rollout.paused", str(at))
    with following(running, after=1) as first:
        assert [next(first).id, next(first).id] == [2, 3]
    with following(running, 2, after=1) as back:
        assert next(back).id == 3


def test_telemetry_of_a_healthy_board_is_no_news(running: World) -> None:
    running.publish("1.0", 10)
    device = running.enrol("cam-1")
    running.roll_out("1.0")
    device.live()
    for _ in range(5):
        device.send(device.report(Phase.CONFIRMED))
    device.send(device.report(Phase.ROLLED_BACK, HARM))
    recent = running.operator.http.get("/api/v1/events/recent", params={"subject": "cam-1"}).json()
    kinds = [each["kind"] for each in recent]
    assert kinds == ["device.enrolled", "device.confirmed", "device.rolled_back"]


def test_what_is_not_kept_any_more_is_told_as_a_gap(running: World) -> None:
    for at in range(20):
        emit(running, "rollout.paused", str(at))
    with transaction(running.context.engine) as session:
        service.trim(session, 5)
        oldest, newest = service.bounds(session)
    assert newest - oldest == 4
    with following(running, 3) as late:
        gap = next(late)
        assert (gap.kind, gap.data) == ("gap", {"after": 3, "upto": oldest - 1})
        assert [next(late).id for _ in range(5)] == list(range(oldest, newest + 1))
    with following(running, newest + 1000) as restored:
        assert next(restored).data == {"after": newest + 1000, "upto": newest}


def test_an_event_is_there_only_if_what_it_tells_of_is(running: World) -> None:
    with pytest.raises(RuntimeError), transaction(running.context.engine) as session:
        service.emit(session, "rollout.halted", "x", {}, 1.0)
        raise RuntimeError
    with transaction(running.context.engine) as session:
        assert service.bounds(session) == (0, 0)


def test_who_may_follow_and_how_many(tmp_path: Path) -> None:
    with world(tmp_path, event_streams=1) as running:
        device = running.enrol("cam-1")
        assert device.http.get("/api/v1/events").status_code == 401
        assert httpx.get(f"{running.url}/api/v1/events").status_code == 401
        wrong = running.operator.http.get("/api/v1/events", params={"kind": "rollout.%"})
        assert wrong.status_code == 422
        with following(running, 0) as one:
            assert next(one).kind == "device.enrolled"
            assert running.operator.http.get("/api/v1/events").status_code == 503
        recent = running.operator.http.get("/api/v1/events/recent").json()
        assert [each["kind"] for each in recent] == ["device.enrolled"]


class FakeFeed:
    """Has so many events at once."""

    def __init__(self, events: int) -> None:
        self.followers, self.events = 0, events

    async def bounds(self) -> tuple[int, int]:
        return 1, self.events

    def after(self, last: int, kinds: object, subject: str) -> tuple[list[EventInfo], int]:
        found = [EventInfo(id=at, at=1, kind="a.b", subject="x")
                 for at in range(last + 1, self.events + 1)]  # fmt: skip
        return found, self.events


def run(feed: FakeFeed, send: Any, has_left: Callable[[], bool] = lambda: False) -> bool:
    """Says whether the stream came to its end, by itself or because the follower has left."""

    async def receive() -> Message:
        while not has_left():
            await anyio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def work() -> bool:
        with anyio.move_on_after(PATIENCE) as scope:
            await EventStream(feed, 0, ("*",))({"type": "http"}, receive, send)  # type: ignore[arg-type]
        return not scope.cancelled_caught

    return anyio.run(work)


def test_a_follower_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_SLOW_SECONDS", 0.05)
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        if len(sent) == 2:
            await anyio.sleep_forever()
        sent.append(message.get("body", b""))

    feed = FakeFeed(3)
    assert run(feed, send)
    assert feed.followers == 0


def test_silence_is_broken_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(stream, "_LOOK_SECONDS", 0.01)
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    def beats() -> int:
        return sum(each.startswith(b":") for each in sent)

    assert run(FakeFeed(1), send, lambda: beats() > 2)
    assert sum(b"event: a.b" in each for each in sent) == 1


def test_lines_of_a_stream_are_read_as_the_standard_says() -> None:
    text = ["retry: 2000", "", ": still here", "", "id: 7", "event: a.b",
            'data: {"id":7,"at":1,"kind":"a.b","subject":"x","data":{}}', "",
            "id: 9", "event: gap", 'data: {"after":7,"upto":9}', ""]  # fmt: skip
    assert [(each.kind, each.id) for each in parse(iter(text))] == [("a.b", 7), ("gap", 9)]


@pytest.mark.parametrize(
    ("kind", "patterns", "wanted"),
    [
        ("rollout.halted", ("*",), True),
        ("rollout.halted", ("rollout.*",), True),
        ("rollout.halted", ("gate.*", "rollout.halted"), True),
        ("rollout.halted", ("rollout.paused",), False),
        ("rollouts.halted", ("rollout.*",), False),
        ("rollout.halted", (), False),
    ],
)
def test_kinds(kind: str, patterns: tuple[str, ...], wanted: bool) -> None:
    assert matches(kind, patterns) is wanted


def test_every_event_of_the_machines_has_a_name() -> None:
    assert set(kinds_module.ROLLOUT) == set(RolloutEvent)
    assert set(kinds_module.GATE) == set(StageEvent)
