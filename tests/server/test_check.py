"""Check: each thing that can be wrong with a server's folders is found, named and graded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kedge_server.cli import app
from kedge_server.operation.findings import expiring
from tests.sim.world import World

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def check(running: World, *options: str) -> tuple[int, dict[str, Any]]:
    home = running.home
    arguments = ["check", "--data", str(home / "server"), "--trust", str(home / "trust"), "--json"]
    result = CliRunner().invoke(app, [*arguments, *options])
    return result.exit_code, json.loads(result.output)


def sql(running: World, statement: str) -> None:
    with sqlite3.connect(running.home / "server" / "kedge.db", isolation_level=None) as base:
        base.execute("PRAGMA foreign_keys=OFF")
        base.execute(statement)
    base.close()


def engine(running: World) -> Path:
    root = running.home / "server" / "artifacts"
    return max((each for each in root.rglob("*") if each.is_file()), key=lambda e: e.stat().st_size)


def flip(running: World) -> None:
    path = engine(running)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)


def offline_key(running: World) -> None:
    (running.home / "trust" / "online" / "root.key").write_text("")


def stranger(running: World) -> None:
    (running.home / "server" / "artifacts" / "notes.txt").write_text("mine")


def broken_off(running: World) -> None:
    folder = running.home / "server" / "artifacts" / "collected"
    folder.mkdir()
    engine(running).rename(folder / engine(running).name)


DAMAGE: dict[str, tuple[Callable[[World], object], int, str]] = {
    "an engine is gone": (lambda w: engine(w).unlink(), 1, "missing, needed as model.onnx of"),
    "one bit of an engine": (flip, 1, "damaged, needed as model.onnx of"),
    "a row of the audit log": (
        lambda w: sql(w, "UPDATE audit SET detail = 'nothing' WHERE id = 2"), 1, "at row 2",
    ),
    "a row taken out of the log": (
        lambda w: sql(w, "DELETE FROM audit WHERE id = 2"), 1, "at row 3",
    ),
    "a row without its other": (
        lambda w: sql(w, "INSERT INTO assignment VALUES ('nobody', '', '', 1, 1, 1, '{}')"), 1,
        "a row of assignment refers",
    ),
    "an older revision": (
        lambda w: sql(w, "UPDATE alembic_version SET version_num = '0002'"), 3, "revision 0002",
    ),
    "a newer revision": (
        lambda w: sql(w, "UPDATE alembic_version SET version_num = '9999'"), 1, "does not know",
    ),
    "an offline key": (offline_key, 1, "is an offline key"),
    "somebody's file": (stranger, 3, "notes.txt"),
    "a collection that was killed": (broken_off, 1, "broken off"),
}  # fmt: skip


def test_a_server_that_works_has_nothing_to_be_done(running: World) -> None:
    running.publish("1.0", 10)
    running.enrol("cam-1").poll()
    status, found = check(running)
    assert (status, found["findings"]) == (0, [])
    said = "manifest, its provenance, policy, director, engine, references, golden frame"
    assert found["artifacts"] == 7, said
    assert found["audit_rows"] >= 2


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found(running: World, name: str) -> None:
    running.publish("1.0", 10)
    running.enrol("cam-1")
    damage, status, text = DAMAGE[name]
    damage(running)
    got, found = check(running)
    assert got == status, found["findings"]
    assert any(text in each["what"] for each in found["findings"]), found["findings"]


def test_a_damaged_database_is_told_as_such(running: World) -> None:
    running.publish("1.0", 10)
    running.context.engine.dispose()
    path = running.home / "server" / "kedge.db"
    body = bytearray(path.read_bytes())
    body[4096:12288] = b"\xff" * 8192
    path.write_bytes(body)
    status, found = check(running)
    assert status == 1
    assert {each["subject"] for each in found["findings"]} == {"database"}


def test_quick_reads_no_bytes_but_sees_what_is_missing(running: World) -> None:
    running.publish("1.0", 10)
    flip(running)
    assert check(running, "--quick")[0] == 0
    engine(running).unlink()
    assert check(running, "--quick")[0] == 1


def test_an_upload_that_nothing_names_is_only_a_note(running: World) -> None:
    running.publish("1.0", 10)
    running.context.store.add(b"never published")
    status, found = check(running)
    assert status == 0
    assert [each["level"] for each in found["findings"]] == ["note"]


@pytest.mark.parametrize(
    ("role", "left", "level"),
    [
        ("timestamp", timedelta(hours=13), None),
        ("timestamp", timedelta(hours=5), "attention"),  # should have been signed anew at 12
        ("timestamp", timedelta(0), "broken"),
        ("targets", timedelta(days=31), None),
        ("targets", timedelta(days=29), "attention"),
        ("root", timedelta(seconds=-1), "broken"),
    ],
)
def test_metadata_is_told_of_before_it_expires(
    role: str, left: timedelta, level: str | None
) -> None:
    lives = {"timestamp": timedelta(hours=24)}
    assert [each.level for each in expiring({role: NOW + left}, lives, NOW)] == (
        [level] if level else []
    )
