"""Download slots: so many boards of a rollout at a time, and who was admitted goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlmodel import SQLModel, update

from kedge_server.database import connect, transaction
from kedge_server.devices.tables import AssignmentRow, DeviceRow
from kedge_server.rollouts.slots import Queue, admit, trim, wait_seconds
from kedge_server.rollouts.tables import DeploymentRow, DownloadRow, RolloutRow
from kedge_shared import api, wire
from kedge_shared.manifest import read_manifest
from kedge_shared.phases import Phase
from tests.sim.device import SimDevice
from tests.sim.world import World


def start(running: World, boards: int, **limits: int) -> tuple[list[SimDevice], list[str]]:
    folder = running.publish("1.0", 10)
    manifest = read_manifest((folder / "x86-onnxruntime" / "manifest.json").read_bytes())
    devices = [running.enrol(f"cam-{at}") for at in range(boards)]
    stage = api.StageSpec(percent=100, gate=api.GateSpec(soak_seconds=0))
    running.operator.create_rollout(
        api.RolloutSpec(model="shapes", release="1.0", stages=(stage,), **limits)  # type: ignore[arg-type]
    )
    for each in devices:
        each.poll()
    return devices, [each.sha256 for each in manifest.files]


def fetch(device: SimDevice, sha256: str) -> int:
    answer = device.http.get(f"/api/v1/artifacts/{sha256}")
    if answer.status_code == 503:
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert "download first" in answer.json()["error"]
    return answer.status_code


def test_so_many_boards_fetch_at_a_time(running: World) -> None:
    (one, two, three), (engine, golden) = start(running, 3, download_slots=2)
    assert [fetch(each, engine) for each in (one, two, three)] == [200, 200, 503]
    assert fetch(one, golden) == 200, "who was admitted goes on"
    assert fetch(three, golden) == 503
    assert running.operator.http.get(f"/api/v1/artifacts/{engine}").status_code == 200
    two.send(two.report(Phase.DOWNLOADING))
    assert fetch(three, engine) == 503
    two.send(two.report(Phase.VERIFYING))
    assert [fetch(three, engine), fetch(two, engine)] == [200, 503]


def test_a_board_that_went_away_does_not_hold_its_slot_for_ever(running: World) -> None:
    (one, two), (engine, _) = start(running, 2, download_slots=1)
    assert [fetch(one, engine), fetch(two, engine)] == [200, 503]
    with transaction(running.context.engine) as session:
        session.execute(update(DownloadRow).values(until=time.time() - 1))
    assert fetch(two, engine) == 200


def test_so_many_begin_in_a_minute(running: World) -> None:
    (one, two), (engine, _) = start(running, 2, downloads_per_minute=1)
    assert fetch(one, engine) == 200
    one.send(one.report(Phase.VERIFYING))
    assert fetch(two, engine) == 503
    with transaction(running.context.engine) as session:
        trim(session, time.time())
    assert fetch(two, engine) == 503, "what counts is not forgotten"
    with transaction(running.context.engine) as session:
        session.execute(update(DownloadRow).values(begun=time.time() - 61))
        trim(session, time.time())
    assert fetch(two, engine) == 200


def test_of_boards_that_ask_at_once_no_more_are_admitted(tmp_path: Path) -> None:
    engine = connect(tmp_path / "kedge.db")
    SQLModel.metadata.create_all(engine)
    names = [f"cam-{at}" for at in range(6)]
    stage = api.StageSpec(percent=100)
    spec = api.RolloutSpec(model="m", release="1", stages=(stage,), download_slots=2)
    with transaction(engine) as session:
        session.add(RolloutRow(id="ro", model="m", release="1", recall=False, state="running",
                               spec=wire.encode(spec).decode(), reason="", created=0))  # fmt: skip
        for each in names:
            session.add(DeviceRow(id=each, device_class="x", key_id="", public_key="",
                                  token_hash=each, facts="{}", enrolled=0))  # fmt: skip
        session.flush()
        for each in names:
            session.add(DeploymentRow(id=f"de-{each}", rollout="ro", device=each, stage=0,
                                      model="m", release="1", verdict="{}", updated=0))  # fmt: skip
            session.add(AssignmentRow(device=each, deployment=f"de-{each}", intent="install",
                                      counter=1, issued=1, expires=2, envelope="{}"))  # fmt: skip
    waits: list[int] = []

    def ask(name: str) -> None:
        with transaction(engine) as session:
            waits.append(admit(session, name, 1000, 1.0))

    threads = [threading.Thread(target=ask, args=(each,)) for each in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert sorted(wait > 0 for wait in waits) == [False] * 2 + [True] * 4


@pytest.mark.parametrize(
    ("fields", "wait"),
    [
        ((5, 9, None, None, 3, 20), 0),
        ((4, 9, 5, None, 3, 20), 0),
        ((5, 9, 5, None, 3, 20), 5),
        ((0, 9, 5, 10, 3, 20), 0),
        ((0, 10, 5, 10, 3, 20), 20),
        ((5, 10, 5, 10, 30, 20), 30),
        ((5, 10, 5, 10, 900, 20), 60),
    ],
)
def test_how_long_to_wait(
    fields: tuple[int, int, int | None, int | None, float, float], wait: int
) -> None:
    assert wait_seconds(Queue(*fields)) == wait
