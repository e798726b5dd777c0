"""Keeping processes going, giving up on what no restart mends, and ending at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kedge_agent import supervisor
from kedge_agent.settings import AgentSettings
from kedge_agent.specs import SourceSpec
from kedge_agent.supervisor import Child, write_runner_settings
from kedge_shared.errors import StorageError
from kedge_shared.locks import locked
from tests.waiting import PATIENCE, wait_until


def child(script: str, *, may_end: bool = True) -> Child:
    return Child("child", [sys.executable, "-c", script], None, lambda: may_end)


def noting(marks: Path, status: int) -> str:
    """A process that leaves a mark of each of its lives and ends."""
    return f"open({str(marks)!r}, 'a').write('x'); raise SystemExit({status})"


def lives(marks: Path) -> int:
    return len(marks.read_text()) if marks.is_file() else 0


async def stopped(one: Child, keeping: asyncio.Future[int]) -> float:
    """Stops a child and returns how long that took, seconds."""
    started = time.monotonic()
    await one.stop()
    await keeping
    return time.monotonic() - started


def test_a_process_is_told_how_often_it_was_started_in_a_row(tmp_path: Path) -> None:
    async def scenario() -> None:
        said = tmp_path / "said"
        script = f"import os; open({str(said)!r}, 'a').write(os.environ['KEDGE_STARTS'])"
        one = child(script + "; raise SystemExit(1)")
        keeping = asyncio.ensure_future(one.keep())
        await wait_until(lambda: said.is_file() and said.read_text()[:3] == "123")
        await stopped(one, keeping)

    asyncio.run(scenario())


@pytest.mark.parametrize(("answers", "killed"), [(True, False), (False, True)])
def test_an_updater_that_lives_and_answers_nothing_is_started_anew(
    tmp_path: Path, answers: bool, killed: bool
) -> None:
    asked = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            await reader.readline()
            asked += 1
            if answers:
                writer.write(b"{}\n")
            else:
                await asyncio.sleep(PATIENCE)
        finally:
            writer.close()

    async def scenario() -> None:
        desk, marks = tmp_path / "desk", tmp_path / "marks"
        one = child(f"open({str(marks)!r}, 'a').write('x'); import time; time.sleep(600)")
        keeping = asyncio.ensure_future(one.keep())
        await wait_until(lambda: lives(marks) == 1)
        server = await asyncio.start_unix_server(converse, str(desk))
        watching = asyncio.ensure_future(
            supervisor._watch(one, desk, 0.02, PATIENCE if answers else 0.05)
        )
        if killed:
            await wait_until(lambda: lives(marks) == 2)
        else:
            await wait_until(lambda: asked == 8)
            assert lives(marks) == 1
        watching.cancel()
        await stopped(one, keeping)
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for each in rest:
            each.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    asyncio.run(scenario())


def test_an_updater_that_has_no_desk_yet_is_left_alone(tmp_path: Path) -> None:
    assert not asyncio.run(supervisor._is_stuck(tmp_path / "none", 0.1))
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(tmp_path / "left"))
    assert not asyncio.run(supervisor._is_stuck(tmp_path / "left", 0.1))


def test_ctrl_c_at_the_terminal_is_for_the_supervisor_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        said = tmp_path / "said"
        script = f"import os; open({str(said)!r}, 'w').write(str(os.getsid(0) == os.getpid()))"
        one = child(script)
        keeping = asyncio.ensure_future(one.keep())
        await wait_until(lambda: said.is_file() and said.read_text() == "True")
        await stopped(one, keeping)

    asyncio.run(scenario())


def test_a_process_that_ends_is_started_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        one = child(noting(tmp_path / "marks", 1))
        keeping = asyncio.ensure_future(one.keep())
        await wait_until(lambda: lives(tmp_path / "marks") >= 2)
        await stopped(one, keeping)

    asyncio.run(scenario())


def test_a_board_with_nothing_to_serve_is_given_up_when_no_restart_mends_it(
    tmp_path: Path,
) -> None:
    one = child(noting(tmp_path / "marks", 2), may_end=True)
    assert asyncio.run(asyncio.wait_for(one.keep(), PATIENCE)) == 2
    assert lives(tmp_path / "marks") == 1


def test_a_board_that_serves_is_never_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_HOPELESS_SECONDS", 0.05)

    async def scenario() -> None:
        one = child(noting(tmp_path / "marks", 2), may_end=False)
        keeping = asyncio.ensure_future(one.keep())
        await wait_until(lambda: lives(tmp_path / "marks") >= 3)
        assert not keeping.done()
        await stopped(one, keeping)

    asyncio.run(scenario())


def test_stopping_does_not_wait_for_the_next_try(tmp_path: Path) -> None:
    async def scenario() -> None:
        one = child(noting(tmp_path / "marks", 2), may_end=False)  # tries again in a minute
        keeping = asyncio.ensure_future(one.keep())
        await wait_until(lambda: lives(tmp_path / "marks") >= 1)
        await asyncio.sleep(0.2)
        assert await stopped(one, keeping) < 40

    asyncio.run(scenario())


def test_a_process_that_does_not_want_to_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_STOP_SECONDS", 0.2)
    at = tmp_path / "pid"
    script = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open({str(at)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )

    async def scenario() -> None:
        one = child(script)
        keeping = asyncio.ensure_future(one.keep())
        await wait_until(lambda: at.is_file() and bool(at.read_text()))
        await stopped(one, keeping)
        with pytest.raises(ProcessLookupError):
            os.kill(int(at.read_text()), signal.SIG_DFL)

    asyncio.run(scenario())


def test_a_board_starts_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AgentSettings(
        server="http://127.0.0.1:1", root=tmp_path / "root.json", state_dir=tmp_path,
        device="cam", device_class="x86-onnxruntime",
        source=SourceSpec(kind="video", path=tmp_path / "camera.mp4"),
    )  # fmt: skip
    written = write_runner_settings(settings)

    def full(path: Path, _: bytes) -> None:
        raise StorageError(f"disk is full, {path.name} was not written")

    monkeypatch.setattr(supervisor, "write_whole", full)
    assert write_runner_settings(settings) == written
    with pytest.raises(StorageError, match="disk is full"):
        write_runner_settings(replace(settings, threads=2))


def test_a_second_agent_is_kept_from_a_board_and_the_first_goes_on(tmp_path: Path) -> None:
    """Started by hand beside the service, it would take sockets and journal from under it."""
    (tmp_path / "root.json").write_text("{}")
    (tmp_path / "frames").mkdir()
    config = tmp_path / "agent.yaml"
    config.write_text(
        "{server: 'http://127.0.0.1:1', root: root.json, state_dir: state, device: cam,"
        " device_class: x86-onnxruntime, source: {kind: folder, path: frames}}"
    )
    (tmp_path / "state").mkdir()
    main = "from kedge_shared.cli import main; main()"
    command = [sys.executable, "-c", main, "agent", "run", "--config", str(config)]
    with locked(tmp_path / "state", wait=False):
        second = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert second.returncode == 6, second.stderr
        where = tmp_path / "state"
        said = f"kedge: another agent runs on {where}; stop it, or choose another state_dir"
        assert second.stderr.splitlines() == [said]
        assert list((tmp_path / "state").iterdir()) == []
    with locked(tmp_path / "state", wait=False):
        pass
