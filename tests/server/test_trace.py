"""A board's page shows the frame times of its last windows from the first moment on."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest

from kedge_server.database import transaction
from kedge_server.devices import intake, trace
from kedge_server.errors import RequestError
from kedge_shared.accounts import UserRequest
from kedge_shared.histogram import Histogram
from kedge_shared.phases import Phase
from tests.server.people import PASSWORD, browser
from tests.server.test_telemetry import window
from tests.sim.device import SimDevice
from tests.sim.world import World


def test_a_trace_is_bounded_and_of_windows_that_came_at_once_the_last_stands() -> None:
    text = ""
    for at in range(3 * trace.MOST):
        text = trace.grown(text, 1_796_000_000 + at, [123.456789] * 3)
    assert len(text) < 1000
    text = trace.grown(text, 1_796_000_000 + 3 * trace.MOST - 1, [10.0] * 3)
    found = trace.read([text])
    assert len(found) == trace.MOST
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert found[-1].p95 < 11 < found[-2].p95
    assert trace.grown(text, 1_796_001_000, []) == text


def test_starts_of_a_board_are_one_line() -> None:
    older, newer = trace.grown("", 100, [10.0] * 3), trace.grown("", 200, [20.0] * 3)
    assert [each.at for each in trace.read([newer, older])] == [100, 200]


def measures(world: World, board: SimDevice, milliseconds: float, at: float) -> None:
    report = board.report(Phase.IDLE, window=window([milliseconds] * 50), deployment="")
    with transaction(world.context.engine) as session:
        (taken,) = intake.take(session, [intake.Sent(board.name, [report])], at)
    assert taken == intake.Taken(1, 0)


def test_the_page_of_a_board_begins_with_what_is_known(running: World) -> None:
    board = running.enrol("cam-1")
    running.operator.add_user(UserRequest(name="vera", roles=("viewer",), password=PASSWORD))
    with browser(running, "vera") as pages:
        assert "data-trace" not in pages.get("/devices/cam-1").text
        for at, value in enumerate((10.0, 20.0, 40.0)):
            measures(running, board, value, 1000.0 + 300 * at)
        found = drawn(pages.get("/devices/cam-1").text)
    assert found["at"] == [1000, 1300, 1600]
    assert [each["label"] for each in found["lines"]] == ["p50", "p95", "p99"]
    p95 = found["lines"][1]["values"]
    assert [round(each / 10) for each in p95] == [1, 2, 4]


def drawn(page: str) -> dict[str, Any]:
    told = re.search(r'data-trace="([^"]+)"', page)
    assert told is not None
    return dict(json.loads(html.unescape(told[1])))


@pytest.mark.parametrize("counts", [{"9999": 1}, {"abc": 1}, {"1": -1}])
def test_a_window_that_nobody_can_read_takes_no_other_board_with_it(
    running: World, counts: dict[str, int]
) -> None:
    honest, other = running.enrol("cam-1"), running.enrol("cam-2")
    bad = window([10.0], latency_ms=Histogram(counts))
    sent = [
        intake.Sent(each.name, [each.report(Phase.IDLE, window=held, deployment="")])
        for each, held in ((honest, window([10.0])), (other, bad))
    ]
    with transaction(running.context.engine) as session:
        taken, refused = intake.take(session, sent, 1000.0)
    assert taken == intake.Taken(1, 0)
    assert isinstance(refused, RequestError)
