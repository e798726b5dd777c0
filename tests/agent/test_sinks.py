"""Sinks: whatever becomes of one, the loop and the other sinks do not notice."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kedge_agent.detector import Detections
from kedge_agent.sinks.base import Result
from kedge_agent.sinks.callback import Callback
from kedge_agent.sinks.http import Http
from kedge_agent.sinks.jsonl import JsonLines
from kedge_agent.sinks.opening import open_sinks
from kedge_agent.sinks.queued import Queued
from kedge_agent.sinks.snapshot import Snapshot
from kedge_agent.specs import SinkSpec, sinks_of
from kedge_shared.errors import InputError, StorageError
from tests.sim.camera import Clock
from tests.sim.engine import slot_of
from tests.waiting import PATIENCE, wait_for


def result(seq: int = 0, source: str = "main") -> Result:
    rows = np.array([[8, 8, 40, 40, 0.9, 1]], np.float32)
    found = Detections(rows, ("circle", "square"), 1.5, finite=True)
    return Result(source, seq, 12.5, np.zeros((64, 64, 3), np.uint8), found, slot_of("1.0"))


class Blocked:
    """A sink that takes nothing until it may."""

    def __init__(self) -> None:
        self.may, self.entered = threading.Event(), threading.Event()
        self.taken: list[Result] = []

    def put(self, result: Result) -> None:
        self.entered.set()
        assert self.may.wait(PATIENCE)
        self.taken.append(result)

    def close(self) -> None: ...


def test_a_sink_that_blocks_costs_its_own_oldest_results_only() -> None:
    slow, quick = Blocked(), Blocked()
    quick.may.set()
    sinks = [
        Queued("slow", lambda: slow, 3),
        Queued("quick", lambda: quick, 100, wants_image=False),
    ]
    sinks[0].put(result(0))
    assert slow.entered.wait(PATIENCE)
    sinks[1].put(result(0))
    for seq in range(1, 50):
        for each in sinks:
            each.put(result(seq))
    wait_for(lambda: sinks[1].state().taken == 50)
    assert [each.seq for each in quick.taken] == list(range(50))
    assert all(each.image is None for each in quick.taken), "what waits holds no frames"
    assert (sinks[0].state().taken, sinks[0].state().dropped) == (0, 46)
    slow.may.set()
    wait_for(lambda: sinks[0].state().taken == 4)
    assert [each.seq for each in slow.taken] == [0, 47, 48, 49], "the newest are kept"
    assert slow.taken[0].image is not None


def test_a_sink_that_fails_is_counted_and_goes_on() -> None:
    taken: list[int] = []

    def fussy(given: Result) -> None:
        if given.seq % 2:
            raise ZeroDivisionError("odd")
        taken.append(given.seq)

    sink = Queued("mine", lambda: Callback(fussy))
    for seq in range(6):
        sink.put(result(seq))
    sink.close()
    state = sink.state()
    assert (taken, state.taken, state.errors, state.why) == ([0, 2, 4], 3, 3, "odd")


def test_a_sink_that_cannot_be_opened_is_opened_later() -> None:
    tries: list[int] = []

    def make() -> Blocked:
        tries.append(1)
        if len(tries) < 3:
            raise InputError("port is taken")
        found = Blocked()
        found.may.set()
        return found

    sink = Queued("late", make)
    for seq in range(4):
        sink.put(result(seq))
    sink.close()
    assert (sink.state().errors, sink.state().taken, len(tries)) == (2, 2, 3)


def test_what_waits_is_written_before_the_end(tmp_path: Path) -> None:
    (sink,) = open_sinks([SinkSpec(kind="jsonl", path=tmp_path / "a" / "frames.jsonl")])
    for seq in range(100):
        sink.put(result(seq))
    sink.close()
    lines = [json.loads(each) for each in (tmp_path / "a/frames.jsonl").read_text().splitlines()]
    assert [each["seq"] for each in lines] == list(range(100))
    assert lines[0] == {
        "seq": 0, "source": "main", "t": 12.5, "release": "1.0",
        "engine": slot_of("1.0").engine[:12], "ms": 1.5,
        "objects": [{"label": "square", "conf": 0.9, "box": [8.0, 8.0, 40.0, 40.0]}],
    }  # fmt: skip


def test_lines_turn_over_at_their_size(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "f", 0.001)
    for seq in range(20):
        sink.put(result(seq))
    sink.close()
    kept = [tmp_path / "f.1", tmp_path / "f"]
    assert all(each.stat().st_size < 1500 for each in kept)
    assert json.loads(kept[1].read_text().splitlines()[-1])["seq"] == 19


def test_half_a_line_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk that takes ten bytes more."""

        def write(self, data: bytes) -> int:
            return (tmp_path / "frames.jsonl").write_bytes(data[:10])

        def tell(self) -> int:
            return 0

        def close(self) -> None: ...

    sink = JsonLines(tmp_path / "frames.jsonl", 1)
    monkeypatch.setattr(sink, "_file", Full())
    with pytest.raises(StorageError, match="disk full"):
        sink.put(result(1))
    sink.close()
    sink.put(result(2))
    sink.put(result(3))
    sink.close()
    _, *whole = (tmp_path / "frames.jsonl").read_bytes().splitlines()
    assert [json.loads(each)["seq"] for each in whole] == [2, 3]


def test_a_snapshot_is_whole_and_not_too_often(tmp_path: Path) -> None:
    import cv2

    clock = Clock()
    sink = Snapshot(tmp_path / "shot.jpg", 2.0, clock)
    sink.put(result())
    drawn = cv2.imread(str(tmp_path / "shot.jpg"))
    assert drawn.shape == (64, 64, 3)
    assert drawn[8, 20].max() > 100, "the box is drawn"
    (tmp_path / "shot.jpg").unlink()
    clock.now += 1.9
    sink.put(result())
    assert not (tmp_path / "shot.jpg").exists()
    sink.put(result(source="yard"))
    clock.now += 0.2
    sink.put(result())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["shot-yard.jpg", "shot.jpg"]


@pytest.fixture
def web() -> Iterator[Http]:
    sink = Http("127.0.0.1", 0)
    yield sink
    sink.close()


def get(web: Http, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=PATIENCE)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_latest_detections_and_picture_of_each_source(web: Http) -> None:
    assert get(web, "/detections") == (200, b"{}\n")
    assert get(web, "/snapshot.jpg")[0] == 404
    for given in (result(1), result(2), result(7, "yard")):
        web.put(given)
    found = json.loads(get(web, "/detections")[1])
    assert {name: each["seq"] for name, each in found.items()} == {"main": 2, "yard": 7}
    status, picture = get(web, "/snapshot.jpg?source=yard")
    assert (status, picture[:3]) == (200, b"\xff\xd8\xff")
    assert get(web, "/snapshot.jpg?source=none")[0] == 404
    assert get(web, "/")[0] == 404


def test_each_result_is_an_event(web: Http) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE) as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for(lambda: web._streams)
        for seq in range(3):
            web.put(result(seq))
        got = b""
        while got.count(b"data: ") < 3:
            got += client.recv(4096)
    _, _, body = got.partition(b"\r\n\r\n")
    events = [each for each in body.split(b"\n\n") if each.startswith(b"data: ")]
    assert [json.loads(each[6:])["seq"] for each in events] == [0, 1, 2]
    assert b"text/event-stream" in got
    # The client is gone: its place is free as soon as a write shows it.
    wait_for(lambda: web.put(result()) or not web._streams)


def test_clients_that_do_not_read_hold_up_nobody(web: Http) -> None:
    clients = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(40)]
    for each in clients:
        each.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_for(lambda: len(web._streams) == 16)
    started = time.monotonic()
    for seq in range(500):
        web.put(result(seq))
    assert time.monotonic() - started < PATIENCE
    assert len(web._streams) == 16, "no more threads than that"
    for each in clients:
        each.close()
    wait_for(lambda: web.put(result()) or not web._streams)
    wait_for(lambda: answers(web))


def answers(web: Http) -> bool:
    try:
        return get(web, "/detections")[0] == 200
    except OSError:
        return False


def test_a_page_of_elsewhere_cannot_read_the_camera(web: Http) -> None:
    web.put(result())
    for host in ("evil.example", "evil.example:8480", "127.0.0.1.evil.example", ""):
        assert get(web, "/detections", Host=host)[0] == 403
    for host in ("localhost", "localhost:8480", "127.0.0.1:8480", "[::1]:8480"):
        assert get(web, "/detections", Host=host)[0] == 200


def test_a_port_that_is_taken_is_said(web: Http) -> None:
    with pytest.raises(InputError, match="cannot listen"):
        Http("127.0.0.1", web.port)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (SinkSpec(kind="jsonl"), "no path"),
        (SinkSpec(kind="python"), "no call"),
        (SinkSpec(kind="http", address="0.0.0.0"), "not this machine's alone"),
        (SinkSpec(kind="http", address="camera.example"), "not this machine's alone"),
    ],
)
def test_a_configuration_that_cannot_work(spec: SinkSpec, said: str) -> None:
    with pytest.raises(InputError, match=said):
        sinks_of((SinkSpec(), spec), Path())


def test_open_to_others_only_when_it_is_said() -> None:
    spec: Any = SinkSpec(kind="http", address="0.0.0.0", beyond_this_machine=True)
    assert sinks_of(spec, Path()) == (spec,)
