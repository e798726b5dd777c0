"""A database with data of every earlier revision becomes this server's, and works on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlmodel import Session

from kedge_server.accounts import logins
from kedge_server.accounts.service import first_admin
from kedge_server.database import connect, migrations, upgrade
from kedge_server.devices.tables import DeviceRow
from kedge_server.rollouts import progress, service
from kedge_server.tables import METADATA
from kedge_shared import wire
from tests.shared import samples

SPEC = (
    '{"model":"shapes","release":"1.0","recall":false,"tags":{},"stages":['
    '{"percent":50.0,"gate":{"max_failure_share":0.0,"min_healthy":null,"soak_seconds":0.0,'
    '"silence_seconds":600.0}},{"percent":100.0,"gate":{"max_failure_share":0.0,'
    '"min_healthy":null,"soak_seconds":0.0,"silence_seconds":600.0}}]}'
)


def config(path: Path) -> Config:
    found = Config()
    found.set_main_option("script_location", str(migrations()))
    found.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    return found


def fill(path: Path) -> None:
    """Writes what a server of revision 0001 had: a rollout whose canary is healthy."""
    facts = wire.encode(samples.facts()).decode()
    verdict = '{"code":"ok","reason":"","evidence":{},"cause":null,"stopped_in":null}'
    with sqlite3.connect(path) as base:
        for name in ("cam-0", "cam-1"):
            base.execute(
                "INSERT INTO device (id, device_class, key_id, public_key, token_hash, tags, facts,"
                " enrolled, release, engine, phase, frames) VALUES (?, 'x86-onnxruntime', 'k', '',"
                " ?, '{}', ?, 1, '', '', 'idle', 0)", (name, name, facts),
            )  # fmt: skip
        base.execute(
            'INSERT INTO rollout ("order", id, model, release, recall, spec, state, reason,'
            " created, skipped) VALUES (1, 'ro-1', 'shapes', '1.0', 0, ?, 'running', 'started', 1,"
            " '{}')",
            (SPEC,),
        )
        base.execute(
            "INSERT INTO stage (rollout, \"index\", percent, state, verdict, reason, started)"
            " VALUES ('ro-1', 0, 50, 'running', 'undecided', '', 1), ('ro-1', 1, 100, 'waiting',"
            " 'undecided', '', NULL)"
        )  # fmt: skip
        row = (
            "INSERT INTO deployment (id, rollout, device, stage, model, release, phase, verdict,"
            " assigned, updated, confirmed, boot_id, seq) VALUES (?, 'ro-1', ?, ?, 'shapes', '1.0',"
            " ?, ?, ?, 1, ?, ?, ?)"
        )
        base.execute(row, ("de-0", "cam-0", 0, "confirmed", verdict, 5.0, 6.0, "boot", 3))
        base.execute(row, ("de-1", "cam-1", 1, "idle", verdict, None, None, "", -1))
    base.close()


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_a_rollout_of_an_earlier_server_goes_on(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "kedge.db"
    command.upgrade(config(path), revision)
    fill(path)
    with sqlite3.connect(path) as base:
        base.execute(
            "INSERT INTO report (device, boot_id, seq, received, deployment, phase, body)"
            " VALUES ('cam-0', 'boot', 3, 1, 'de-0', 'confirmed', '{}')"
        )
    base.close()
    engine = connect(path)
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    with Session(engine) as session, session.begin():
        before = service.info(session, service.find(session, "ro-1"), 10)
        assert [(each.title, each.healthy) for each in before.stages] == [("50 %", 1), ("100 %", 1)]
        assert progress.tick(session, 10)
        after = service.info(session, service.find(session, "ro-1"), 10)
        assert [each.state for each in after.stages] == ["passed", "running"]
        (decision,) = service.replay(session, "ro-1")
        assert decision.same
    with sqlite3.connect(path) as base:
        found = dict(base.execute("SELECT id, begun FROM deployment").fetchall())
    base.close()
    assert found == {"de-0": 5.0, "de-1": None}, "who had spoken had taken it up"
    engine.dispose()


def test_the_newest_revision_can_be_gone_back_on_with_its_data(tmp_path: Path) -> None:
    path = tmp_path / "kedge.db"
    command.upgrade(config(path), "0001")
    fill(path)
    command.upgrade(config(path), "head")
    with sqlite3.connect(path) as base:
        base.execute("UPDATE stage SET percent = NULL WHERE \"index\" = 1")  # fmt: skip
    base.close()
    command.downgrade(config(path), "0002")
    with sqlite3.connect(path) as base:
        assert base.execute("SELECT percent FROM stage").fetchall() == [(50.0,), (100.0,)]
        assert base.execute("SELECT count(*) FROM deployment").fetchone() == (2,)
    base.close()


def test_a_server_of_one_operator_becomes_one_of_many_and_back(tmp_path: Path) -> None:
    """0003 to 0004 with data: rollouts learn who made them, boards keep their token."""
    path = tmp_path / "kedge.db"
    command.upgrade(config(path), "0003")
    fill(path)
    with sqlite3.connect(path) as base:
        base.execute(
            "INSERT INTO audit (at, actor, action, subject, detail, previous, hash)"
            " VALUES (1, 'operator', 'rollout create', 'ro-1', '', '', '')"
        )
    base.close()
    engine = connect(path)
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    with Session(engine) as session, session.begin():
        first_admin(session, "the token of the file")
        first_admin(session, "the token of the file")
        rollout = service.find(session, "ro-1")
        assert (rollout.created_by, rollout.state) == ("operator", "running")
        assert logins.of_token(session, "the token of the file").user == "admin"
        device = session.get_one(DeviceRow, "cam-0")
        assert (device.token_hash, device.revoked, device.suspected_clone) == ("cam-0", None, None)
        # What only the new server knows.
        renewing = session.get_one(DeviceRow, "cam-1")
        renewing.token_hash = None
        rollout.state = "proposed"
        session.add_all([renewing, rollout])
    engine.dispose()
    command.downgrade(config(path), "0003")
    with sqlite3.connect(path) as base:
        hashes = dict(base.execute("SELECT id, token_hash FROM device").fetchall())
        assert hashes == {"cam-0": "cam-0", "cam-1": "-cam-1"}, "no token has that hash"
        assert base.execute("SELECT state FROM rollout").fetchall() == [("stopped",)]
        assert base.execute("SELECT count(*) FROM deployment").fetchone() == (2,)
    base.close()
    upgrade(connect(path))
