"""examples/ci_rollout.py against a running server and boards that live."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples import ci_rollout
from tests.sim.device import SimDevice
from tests.sim.world import TOKEN, World, world


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world(tmp_path, tick_seconds=0.2) as found:
        monkeypatch.setenv("KEDGE_CONFIG", str(tmp_path / "none.yaml"))
        monkeypatch.setenv("KEDGE_SERVER", found.url)
        monkeypatch.setenv("KEDGE_TOKEN", TOKEN)
        found.publish("1.0", 10)
        for at in range(3):
            found.enrol(f"cam-{at}")
        yield found


@contextmanager
def living(boards: list[SimDevice]) -> Iterator[None]:
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(0.1):
            for each in boards:
                each.live()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def run(*more: str) -> int:
    return ci_rollout.main(["shapes", "1.0", "--soak-seconds", "0", *more])


def test_a_pipeline_ends_well_once_every_stage_has_passed(
    fleet: World, capsys: pytest.CaptureFixture[str]
) -> None:
    with living(fleet.devices):
        assert run() == 0
    said = capsys.readouterr().out
    assert "gate.passed" in said
    assert said.splitlines()[-1].startswith("rollout.completed")
    assert {each.release for each in fleet.operator.devices()} == {"1.0"}


def test_a_pipeline_fails_with_the_sentence_that_halted_it(
    fleet: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for each in fleet.devices:
        each.refuses = lambda path: True
    with living(fleet.devices):
        assert run() == 3
    assert "is halted: stage 20 %: 1 of 1 devices failed" in capsys.readouterr().err


def test_a_pipeline_is_told_that_the_server_is_away_or_refuses(
    fleet: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ci_rollout.main(["shapes", "9.9"]) == 6
    assert "9.9" in capsys.readouterr().err
    monkeypatch.setenv("KEDGE_SERVER", "http://127.0.0.1:9")
    assert run() == 6
    assert "does not answer" in capsys.readouterr().err
