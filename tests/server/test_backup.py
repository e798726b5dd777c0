"""Backup while the server runs, restore of an older one, and a fleet that is not refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlmodel import Session, select
from typer.testing import CliRunner

from kedge_agent.tuf_client import ImageRepository
from kedge_server.audit.service import record
from kedge_server.audit.tables import AuditRow
from kedge_server.cli import app
from kedge_server.database import connect, migrations, transaction
from kedge_server.operation.archive import CONTENTS
from kedge_shared.audit import broken_at
from kedge_shared.errors import InputError, KedgeError
from kedge_shared.phases import Phase
from tests.server.fleet_keys import MANIFEST
from tests.sim.board import SimBoard, settled
from tests.sim.world import World, serve

TARGETS = ["folder", "file.tar"]


def kedge(*arguments: object) -> str:
    """Runs `kedge server …`; an error is raised as the command's main would catch it."""
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def back_up(running: World, target: Path) -> dict[str, Any]:
    home = running.home
    made: dict[str, Any] = json.loads(
        kedge("backup", target, "--data", home / "server", "--trust", home / "trust", "--json")
    )
    return made


def newest_revision() -> str | None:
    """Returns the last of this server's migrations."""
    config = Config()
    config.set_main_option("script_location", str(migrations()))
    return ScriptDirectory.from_config(config).get_current_head()


def lose(running: World) -> None:
    """The machine is gone: its folders with it."""
    running.context.engine.dispose()
    shutil.move(running.home / "server", running.home / "lost")
    for part in ("online", "repository"):
        shutil.move(running.home / "trust" / part, running.home / f"lost-{part}")


def restored(running: World, source: Path) -> None:
    """Restores; the offline keys were elsewhere all the time."""
    trust = running.home / "new-trust"
    kedge("restore", source, "--data", running.home / "server", "--trust", trust)
    for part in ("online", "repository"):
        shutil.move(trust / part, running.home / "trust" / part)


@pytest.mark.parametrize("target", TARGETS)
def test_everything_comes_back(running: World, tmp_path: Path, target: str) -> None:
    running.publish("1.0", 10, classes=("x86-onnxruntime", "x86-openvino"))
    device = running.enrol("cam-1")
    running.roll_out("1.0")
    device.live()
    made = back_up(running, tmp_path / target)
    assert not made["missing"]
    assert made["revision"] == newest_revision()
    lose(running)
    restored(running, tmp_path / target)
    checked = kedge("check", "--data", running.home / "server", "--trust", running.home / "trust")
    assert "nothing to be done" in checked
    with serve(running.home, running.trust) as (context, url):
        with transaction(context.engine) as session:
            rows = session.exec(select(AuditRow).order_by(AuditRow.id)).all()  # type: ignore[arg-type]
        assert broken_at(rows) is None
        assert rows[-1].action == "restore"
        device.http.base_url = url
        device.etag = ""
        assert device.poll().status_code == 200, "the device's token is still good"
        manifest = device.assignment and device.assignment.manifest
        assert manifest
        assert device.http.get(f"/api/v1/artifacts/{manifest.sha256}").status_code == 200


def test_secrets_are_for_the_owner_alone(running: World, tmp_path: Path) -> None:
    for target in TARGETS:
        back_up(running, tmp_path / target)
    assert (tmp_path / "file.tar").stat().st_mode & 0o077 == 0
    assert (tmp_path / "folder").stat().st_mode & 0o077 == 0
    keys = list((tmp_path / "folder").rglob("*.key"))
    assert {each.stat().st_mode & 0o777 for each in keys} == {0o600}
    assert not [each for each in keys if each.name.startswith(("root", "targets"))]


def test_a_backup_is_one_moment_of_a_busy_server(running: World, tmp_path: Path) -> None:
    """A writer goes on meanwhile: the chain in the backup is whole, and what it says is all in."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with transaction(running.context.engine) as session:
                record(session, "operator", "busy", "one")
                record(session, "operator", "busy", "two")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for at in range(4):
            back_up(running, tmp_path / f"{at}.tar")
    finally:
        stop.set()
        writer.join()
    for at in range(4):
        kedge("restore", tmp_path / f"{at}.tar", "--data", tmp_path / f"data-{at}")
        engine = connect(tmp_path / f"data-{at}" / "kedge.db")
        with Session(engine) as session:
            rows = session.exec(select(AuditRow).order_by(AuditRow.id)).all()  # type: ignore[arg-type]
        engine.dispose()
        assert broken_at(rows) is None
        assert sum(each.action == "busy" for each in rows) % 2 == 0, "half a transaction"


def test_the_second_backup_into_a_folder_writes_only_what_is_new(
    running: World, tmp_path: Path
) -> None:
    running.publish("1.0", 10)
    back_up(running, tmp_path / "kept")
    first = {each: each.stat().st_ino for each in (tmp_path / "kept" / "artifacts").rglob("*")}
    running.publish("1.1", 11)
    back_up(running, tmp_path / "kept")
    assert {each: each.stat().st_ino for each in first} == first
    assert len(list((tmp_path / "kept" / "database").iterdir())) == 1
    kedge("restore", tmp_path / "kept", "--data", tmp_path / "data")
    with sqlite3.connect(tmp_path / "data" / "kedge.db") as base:
        assert base.execute("SELECT count(*) FROM release").fetchone() == (2,)
    base.close()


def test_a_backup_that_is_broken_off_leaves_the_one_before(
    running: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kedge_server.operation import backup as module

    back_up(running, tmp_path / "kept")
    running.publish("1.0", 10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for target in ("kept", "new.tar"):
        monkeypatch.setattr(module, "_artifacts", full)
        with pytest.raises(KedgeError, match="No space left"):
            back_up(running, tmp_path / target)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*new.tar*"))
    kedge("restore", tmp_path / "kept", "--data", tmp_path / "data")
    with sqlite3.connect(tmp_path / "data" / "kedge.db") as base:
        assert base.execute("SELECT count(*) FROM release").fetchone() == (0,)
    base.close()


def test_a_damaged_artifact_is_told_and_the_rest_backed_up(running: World, tmp_path: Path) -> None:
    folder = running.publish("1.0", 10)
    digest = json.loads((folder / "x86-onnxruntime" / "manifest.json").read_bytes())["files"][0]
    path = running.context.store.path(digest["sha256"])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(KedgeError, match="model.onnx of models/shapes/1.0") as caught:
        back_up(running, tmp_path / "kept.tar")
    assert caught.value.exit_code == 7
    kedge("restore", tmp_path / "kept.tar", "--data", tmp_path / "data")


@pytest.mark.parametrize("name", ["trust/../../../escaped", "trust//../escaped"])
def test_nothing_is_written_outside_of_the_folders(
    running: World, tmp_path: Path, name: str
) -> None:
    kept = tmp_path / "kept"
    back_up(running, kept)
    (kept / "escaped").write_text("x")
    contents = kept / CONTENTS
    body = json.loads(contents.read_bytes())
    contents.write_text(json.dumps(body | {"files": [name]}))
    with pytest.raises(InputError, match="outside of it"):
        kedge("restore", kept, "--data", tmp_path / "data", "--trust", tmp_path / "a" / "trust")
    assert not [each for each in tmp_path.rglob("escaped") if each.parent != kept]
    assert not list((tmp_path / "data").glob("*"))


@pytest.mark.parametrize("what", ["data", "trust"])
def test_a_folder_that_holds_something_is_left_alone(
    running: World, tmp_path: Path, what: str
) -> None:
    back_up(running, tmp_path / "kept")
    place = tmp_path / "new"
    (place / what).mkdir(parents=True)
    (place / what / "precious").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        kedge("restore", tmp_path / "kept", "--data", place / "data", "--trust", place / "trust")
    assert [each.name for each in place.rglob("*")] == [what, "precious"]


def test_one_altered_byte_restores_nothing(running: World, tmp_path: Path) -> None:
    running.publish("1.0", 10)
    back_up(running, tmp_path / "kept")
    for part in ("artifacts", "database"):
        copy = tmp_path / f"damaged-{part}"
        shutil.copytree(tmp_path / "kept", copy)
        path = next(each for each in (copy / part).rglob("*") if each.is_file())
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 1
        path.write_bytes(body)
        with pytest.raises(InputError, match="damaged"):
            kedge("restore", copy, "--data", tmp_path / "data")
        assert not list((tmp_path / "data").iterdir())


def test_what_is_no_backup_is_refused(running: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no tar")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(__file__, "../../evil")
    for name in ("empty", "text.tar", "other.tar", "missing.tar"):
        with pytest.raises(InputError):
            kedge("restore", tmp_path / name, "--data", tmp_path / "data")
    with pytest.raises(InputError, match=r"no kedge\.db.*pg_dump|pg_dump"):
        kedge("backup", tmp_path / "b", "--data", tmp_path / "empty", "--trust",
              running.home / "trust")  # fmt: skip
    with pytest.raises(InputError, match="lies within"):
        back_up(running, running.home / "server" / "backup")


def test_boards_go_on_after_a_restore_of_an_older_backup(
    running: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real updater: what it has seen is newer than the backup; it is told anew and believes."""
    board = SimBoard(running, tmp_path / "board", monkeypatch)
    board.install()
    running.publish("1.1", 11)
    back_up(running, tmp_path / "older.tar")
    running.roll_out("1.1")
    board.run(lambda s: s.active is not None and s.active.release == "1.1" and settled(s))
    seen = board.state.counter
    lose(running)
    restored(running, tmp_path / "older.tar")
    with serve(running.home, running.trust) as (context, url):
        board.world = replace(running, context=context, url=url)
        board.run(lambda s: s.counter > seen and settled(s) and s.active.release == "1.0")
        assert board.state.deployment is not None
        assert board.state.deployment.phase is Phase.CONFIRMED
        assert board.state.deployment.verdict.code == "ok"


def test_boards_accept_metadata_of_the_restored_server(running: World, tmp_path: Path) -> None:
    """Snapshot and timestamp go on above what the board saw last, though the backup is older."""
    running.publish("1.0", 10)
    token = running.enrol("cam-1").http.headers["Authorization"].split()[1]

    def look(url: str) -> tuple[int, str]:
        view = ImageRepository(url, token, tmp_path / "view", running.trust.root)
        try:
            view.refresh(time.time())
            return view.proves(0), view.find(MANIFEST.format("1.0")).sha256
        finally:
            view.close()

    back_up(running, tmp_path / "older.tar")
    with transaction(running.context.engine) as session:
        running.context.repository._sign_snapshot(session)
    before = look(running.url)
    # Each signature is a version above Unix time; a test's lie closer together than a server's.
    time.sleep(max(0, running.context.repository.timestamp_version - time.time()))
    lose(running)
    restored(running, tmp_path / "older.tar")
    with serve(running.home, running.trust) as (_, url):
        after = look(url)
    assert after[0] >= before[0]
    assert after[1] == before[1]
