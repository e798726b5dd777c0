"""Telemetry is summed by class and release, each window once, in tables that stay small."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session, func, select

from kedge_server.database import transaction
from kedge_server.telemetry import jobs, service, sums
from kedge_server.telemetry.tables import TelemetryRow, WindowRow
from kedge_shared import histogram
from kedge_shared.histogram import Histogram
from kedge_shared.phases import Phase
from kedge_shared.protocol import Window
from tests.sim.device import SimDevice
from tests.sim.world import World

HOUR = 3600


def window(values: Sequence[float], **changes: Any) -> Window:
    fields: dict[str, Any] = {
        "started": 1, "seconds": 300.0, "frames": len(values), "latency_ms": histogram.of(values),
    }  # fmt: skip
    return Window(**(fields | changes))


def send(device: SimDevice, held: Window, release: str = "1.0") -> None:
    answer = device.send(device.report(Phase.IDLE, window=held, release=release, deployment=""))
    assert answer.status_code == 200, answer.text


def measured(running: World, **filters: str) -> list[dict[str, Any]]:
    answer = running.operator.http.get("/api/v1/telemetry", params=filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def count(session: Session, table: Any) -> int:
    return session.exec(select(func.count()).select_from(table)).one()


def test_percentiles_are_those_of_all_boards_together(running: World) -> None:
    """Two fast boards with many frames, a slow one with few: no average of percentiles says it."""
    running.publish("1.0", 10)
    draw = random.Random(1)
    everything: list[float] = []
    for at, (frames, mean) in enumerate([(3000, 10), (3000, 12), (300, 80)]):
        device = running.enrol(f"cam-{at}")
        values = [draw.uniform(mean * 0.8, mean * 1.2) for _ in range(frames)]
        everything += values
        for part in (values[: frames // 2], values[frames // 2 :]):
            send(device, window(part, dropped=1, confidence=(0, 2, 3)))
    jobs.roll_up(running.context)
    for level in ("hour", "day"):
        (found,) = measured(running, level=level)
        everything.sort()
        for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            true = everything[int(share * len(everything))]
            assert found[name] == pytest.approx(true, rel=0.05), name
        assert (found["frames"], found["dropped"], found["windows"]) == (6300, 6, 6)
        assert found["confidence"][:3] == [0, 12, 18]


def test_classes_and_releases_are_apart(running: World) -> None:
    running.publish("1.0", 10, classes=("x86-onnxruntime", "x86-openvino"))
    running.publish("1.1", 11)
    one, other = running.enrol("cam-0"), running.enrol("cam-1", "x86-openvino")
    send(one, window([10.0]))
    send(one, window([20.0]), "1.1")
    send(other, window([30.0]))
    jobs.roll_up(running.context)
    found = [(each["device_class"], each["release"], each["frames"]) for each in measured(running)]
    assert found == [
        ("x86-onnxruntime", "1.0", 1), ("x86-onnxruntime", "1.1", 1), ("x86-openvino", "1.0", 1),
    ]  # fmt: skip
    assert len(measured(running, device_class="x86-openvino")) == 1
    assert len(measured(running, release="1.1")) == 1


def test_names_that_a_board_makes_up_are_one_row(running: World) -> None:
    device = running.enrol("cam-0")
    for at in range(20):
        send(device, window([1.0]), f"made-up-{at}-" + "x" * 500)
    jobs.roll_up(running.context)
    (found,) = measured(running)
    assert (found["release"], found["windows"]) == ("", 20)


def test_a_report_that_is_sent_twice_counts_once(running: World) -> None:
    device = running.enrol("cam-0")
    report = device.report(Phase.IDLE, window=window([1.0]), release="", deployment="")
    for _ in range(3):
        device.send(report)
    jobs.roll_up(running.context)
    assert measured(running)[0]["windows"] == 1


def test_a_roll_up_that_fails_in_the_midst_counts_each_window_once(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = running.enrol("cam-0")
    send(device, window([1.0]))
    real = service._add

    def torn(session: Session, key: service.Key, parts: Sequence[sums.Sums]) -> None:
        real(session, key, parts)
        if key[0] == "day":
            raise OSError("the disk went away")

    monkeypatch.setattr(service, "_add", torn)
    with pytest.raises(OSError, match="went away"):
        jobs.roll_up(running.context)
    monkeypatch.undo()
    assert measured(running) == []
    for _ in range(2):
        jobs.roll_up(running.context)
    assert [each["windows"] for each in measured(running)] == [1]


def test_tables_are_bounded_by_what_is_kept(running: World) -> None:
    """A year of two classes: the queue is empty, hours are kept for two weeks, days for a year."""
    now = time.time()
    with transaction(running.context.engine) as session:
        for hour in range(0, 370 * 24, 12):
            for name in ("a", "b"):
                one = service.Measured(name, "", window([1.0]))
                service.take(session, [one], now - hour * HOUR)
    for _ in range(3):
        jobs.roll_up(running.context)
    with transaction(running.context.engine) as session:
        assert count(session, WindowRow) == 0
        hours = select(func.count()).where(TelemetryRow.level == "hour")
        days = select(func.count()).where(TelemetryRow.level == "day")
        assert session.exec(hours).one() == pytest.approx(2 * 14 * 2, abs=4)
        assert session.exec(days).one() == pytest.approx(2 * 370, abs=4)
        service.forget(session, service.Retention(HOUR, 30 * 24 * HOUR), now)
        assert session.exec(days).one() == pytest.approx(2 * 30, abs=4)


def test_nobody_without_the_operators_token_reads_it(running: World) -> None:
    device = running.enrol("cam-0")
    assert device.http.get("/api/v1/telemetry").status_code == 401


@given(
    st.dictionaries(st.text(max_size=5), st.integers(-(10**12), 10**12), max_size=5),
    st.lists(st.integers(-(10**12), 10**12), max_size=20),
)
def test_what_a_hostile_board_says_stays_readable(counts: dict[str, int], bins: list[int]) -> None:
    said = replace(window([]), latency_ms=Histogram(counts, -1.0), confidence=tuple(bins))
    held = sums.total([sums.of(said), sums.of(window([5.0] * 10))])
    assert held.latency_ms.quantile(0.5) is not None
    assert min(held.confidence, default=0) >= 0
    assert all(0 < each <= 10**8 for each in held.latency_ms.counts.values())


@given(st.lists(st.lists(st.floats(0.01, 1e5), max_size=20), max_size=8), st.randoms())
def test_sums_do_not_depend_on_order_or_grouping(
    parts: list[list[float]], draw: random.Random
) -> None:
    held = [sums.of(window(each, confidence=(len(each),))) for each in parts]
    shuffled = held[:]
    draw.shuffle(shuffled)
    cut = len(shuffled) // 2
    grouped = sums.total([sums.total(shuffled[:cut]), sums.total(shuffled[cut:])])
    whole = sums.total(held)
    assert grouped.latency_ms.counts == whole.latency_ms.counts
    assert (grouped.frames, grouped.confidence) == (whole.frames, whole.confidence)
