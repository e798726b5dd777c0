"""Strangers have so many attempts; boards that are welcome have as many as they need."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from kedge_server.refusals import address_of
from kedge_server.throttle import Rate, Throttle
from kedge_shared import api
from tests.sim.device import SimDevice
from tests.sim.world import TOKEN, World, world

ELSEWHERE = {"X-Forwarded-For": "203.0.113.7"}
OTHER = {"X-Forwarded-For": "203.0.113.8"}


def test_attempts_are_spent_and_grow_back() -> None:
    throttle, rate = Throttle(), Rate(2, 10.0)
    assert throttle.wait(("a",), rate, 0.0) == 0
    throttle.spend(("a",), rate, 0.0)
    throttle.spend(("a",), rate, 0.0)
    assert throttle.wait(("a",), rate, 0.0) == pytest.approx(10)
    assert throttle.wait(("a",), rate, 5.0) == pytest.approx(5)
    assert throttle.wait(("a",), rate, 10.0) == pytest.approx(0)
    assert throttle.wait(("b",), rate, 0.0) == 0
    throttle.spend(("a",), rate, 1000.0)
    throttle.spend(("a",), rate, 1000.0)
    assert throttle.wait(("a",), rate, 1000.0) > 0, "no more than the limit has grown back"


def test_a_clock_that_goes_back_gives_no_attempts() -> None:
    throttle, rate = Throttle(), Rate(1, 1.0)
    throttle.spend(("a",), rate, 100.0)
    assert throttle.wait(("a",), rate, 50.0) == pytest.approx(1)


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("203.0.113.7", "203.0.113.7"), ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::"), ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("127.0.0.1", ""), ("::1", ""), ("::ffff:127.0.0.1", ""), ("unix", "unix"), ("", ""),
    ],
)  # fmt: skip
def test_whom_attempts_are_counted_for(host: str, counted: str) -> None:
    assert address_of({"client": (host, 1)}) == counted


def guess(world: World, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(
        f"{world.url}/api/v1/enrol", json={}, headers={"Authorization": "Bearer x", **headers}
    )


def test_a_stranger_is_refused_after_some_attempts_and_nobody_else(tmp_path: Path) -> None:
    with world(tmp_path, refusals_at_once=3, refusals_per_minute=1) as found:
        assert [guess(found, ELSEWHERE).status_code for _ in range(4)] == [401, 401, 401, 429]
        busy = guess(found, ELSEWHERE)
        assert 1 <= int(busy.headers["retry-after"]) <= 60
        assert busy.json()["error"]
        assert busy.headers["x-content-type-options"] == "nosniff"
        assert guess(found, OTHER).status_code == 401
        # What asks for a token is not limited: nobody locks a fleet out from its own address.
        listed = httpx.get(
            f"{found.url}/api/v1/devices", headers={"Authorization": f"Bearer {TOKEN}", **ELSEWHERE}
        )
        assert listed.status_code == 200


def test_a_hall_of_boards_behind_one_address_enrols_at_once(tmp_path: Path) -> None:
    with world(tmp_path, refusals_at_once=3, refusals_per_minute=1) as found:
        tokens = found.operator.enrolment_tokens(api.TokenRequest(count=10))
        for at, each in enumerate(tokens):
            board = SimDevice(found.url, f"cam-{at}", "x86-onnxruntime", found.trust.root)
            board.http.headers.update(ELSEWHERE)
            assert board.enrol(each.token).status_code == 200
            board.http.close()
