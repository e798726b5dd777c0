"""``/metrics``: what Prometheus reads, who may, and that no label grows without end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update
from sqlmodel import col

from kedge_server import scheduler
from kedge_server.database import transaction
from kedge_server.metrics import fleet
from kedge_server.metrics.fleet import bounded
from kedge_server.metrics.traffic import kind_of
from kedge_server.rollouts import service as rollouts
from kedge_server.rollouts.tables import RolloutRow
from kedge_server.telemetry import service
from tests.server.people import spec
from tests.server.test_telemetry import window
from tests.sim.world import World, world
from tests.waiting import PATIENCE, wait_for

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_KEPT_SECONDS", 0.0)


def read(running: World) -> Samples:
    answer = httpx.get(f"{running.url}/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def test_the_fleet_is_told(running: World) -> None:
    running.publish("1.0", 10)
    for at in range(3):
        running.enrol(f"cam-{at}").poll()
    running.tick()
    running.roll_out("1.0", 50, 100)
    running.devices[0].live()
    scheduler.seen(running.context)
    found = read(running)
    assert value(found, "kedge_rollouts", state="running") == 1
    assert value(found, "kedge_rollouts", state="halted") == 0
    idle = value(found, "kedge_devices", device_class="x86-onnxruntime", phase="idle")
    assert idle + found.get(
        ("kedge_devices", (("device_class", "x86-onnxruntime"), ("phase", "confirmed"))), 0
    ) == 3  # fmt: skip
    assert value(found, "kedge_devices_seen", within="5m") == 3
    assert value(found, "kedge_alarm") == 0
    polls = [each for key, each in found.items()
             if key[0] == "kedge_http_requests_total" and ("kind", "poll") in key[1]]  # fmt: skip
    assert sum(polls) == 4


def test_metadata_is_told_in_seconds_and_renewals_that_are_late(running: World) -> None:
    found = read(running)
    left = value(found, "kedge_metadata_expires_seconds", role="timestamp")
    assert 86400 - 60 < left <= 86400
    assert value(found, "kedge_metadata_renewal_lag_seconds", role="timestamp") == 0
    running.context.settings.timestamp_hours = 24 * 4
    lag = value(read(running), "kedge_metadata_renewal_lag_seconds", role="timestamp")
    assert 86400 <= lag < 86400 + 60, "signed for a day, of which four were to be"


def test_frame_times_of_the_last_full_hour(running: World) -> None:
    running.publish("1.0", 10)
    before = time.time() - 3600
    with transaction(running.context.engine) as session:
        for found, at in ((window([10.0] * 99, dropped=7), before), (window([99.0]), time.time())):
            service.take(session, [service.Measured("x86-onnxruntime", "1.0", found)], at)
    with transaction(running.context.engine) as session:
        service.roll_up(session)
    found = read(running)
    labels = {"device_class": "x86-onnxruntime", "release": "1.0"}
    assert 9 < value(found, "kedge_frame_time_ms", quantile="0.99", **labels) < 11
    assert value(found, "kedge_frames_dropped", **labels) == 7


def test_the_scheduler_is_told(tmp_path: Path) -> None:
    with world(tmp_path, tick_seconds=0.1) as running:
        done = ("kedge_scheduler_runs_total", (("job", "tick"), ("outcome", "done")))
        wait_for(lambda: read(running).get(done))
        last = value(read(running), "kedge_scheduler_last_run_timestamp_seconds", job="tick")
        assert abs(last - time.time()) < PATIENCE


def test_elsewhere_needs_a_token_of_its_own(tmp_path: Path) -> None:
    token = "a-token-for-prometheus"
    with world(tmp_path, metrics_token=token) as running:

        def ask(**options: Any) -> int:
            return httpx.get(f"{running.url}/metrics", **options).status_code

        assert ask() == 401
        assert ask(headers={"Authorization": f"Bearer {token}"}) == 200
        assert running.operator.http.get("/metrics").status_code == 401
        asked = running.operator.http.get(
            "/api/v1/releases", headers={"Authorization": f"Bearer {token}"}
        )
        assert asked.status_code == 401, "who reads metrics reads nothing else"


def test_a_proxy_on_this_machine_is_not_this_machine(running: World) -> None:
    for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        assert httpx.get(f"{running.url}/metrics", headers={name: "203.0.113.9"}).status_code == 401


def test_paths_and_classes_are_no_labels_without_end(running: World) -> None:

    def told() -> set[object]:
        # A job of the scheduler is told of from its first run on.
        return {each for each in read(running) if not each[0].startswith("kedge_scheduler")}

    before = told()
    for at in range(30):
        httpx.get(f"{running.url}/api/v1/nothing/{at}")
        httpx.get(f"{running.url}/{at}")
    assert told() == before
    assert {kind_of(f"/{each}") for each in ("x", "y/z", "tuf/metadata/1.root.json")} == {
        "other", "metadata",
    }  # fmt: skip
    counts = {(f"class-{at:03}", "idle"): at + 1 for at in range(200)}
    held = bounded(counts)
    assert len(held) == 51
    assert sum(held.values()) == sum(counts.values())
    assert held["class-199", "idle"] == 200


def test_a_rollout_that_cannot_be_judged_keeps_no_other_from_its_gate(running: World) -> None:
    running.publish("1.0", 10)
    running.enrol("cam-0", tags={"site": "a"})
    running.enrol("cam-1", tags={"site": "b"})
    broken, whole = (
        running.operator.create_rollout(spec(selector=f"tag.site=={site}")).id for site in "ab"
    )
    with transaction(running.context.engine) as session:
        session.execute(update(RolloutRow).where(col(RolloutRow.id) == broken).values(spec="{}"))
    running.devices[1].live()
    with pytest.raises(scheduler.TickError, match=f"1 of 2 rollouts, {broken}: stored rollout"):
        running.tick()
    with transaction(running.context.engine) as session:
        assert rollouts.find(session, whole).state == "completed"


def test_a_job_that_fails_is_not_told_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the alarm "no server looks at gates" rests on."""
    failed, done = (
        ("kedge_scheduler_runs_total", (("job", "tick"), ("outcome", each)))
        for each in ("error", "done")
    )
    monkeypatch.setattr(scheduler.progress, "open_rollouts", lambda _: 1 / 0)
    with world(tmp_path, tick_seconds=0.1) as running:
        wait_for(lambda: read(running).get(failed))
        held = read(running).get(done)
        enough = read(running)[failed] + 2
        wait_for(lambda: read(running)[failed] > enough)
        assert read(running).get(done) == held
        assert httpx.get(f"{running.url}/healthz").status_code == 200
