"""A database with data of every earlier revision becomes this server's, and works on."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import Session, select

from kedge_builder.publishing import keys
from kedge_server.accounts import logins
from kedge_server.accounts.service import first_admin
from kedge_server.audit.service import record
from kedge_server.audit.tables import AuditRow
from kedge_server.database import connect, migrations, transaction, upgrade
from kedge_server.devices import service as service_devices
from kedge_server.devices.tables import DeviceRow
from kedge_server.operation.backup import backup
from kedge_server.operation.restore import restore
from kedge_server.rollouts import progress, service
from kedge_server.rollouts.evidence import Evidence
from kedge_server.rollouts.facts import GateFacts
from kedge_server.rollouts.gates import judge
from kedge_server.tables import METADATA
from kedge_shared import wire
from kedge_shared.rollouts import RolloutSpec
from tests.shared import samples
from tests.sim.postgres import Postgres

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


def fill_0002(path: Path) -> None:
    """What revision 0002 brought: a job that is open, and a board that only measures."""
    facts = wire.encode(samples.facts()).decode()
    with sqlite3.connect(path) as base:
        base.execute(
            "INSERT INTO bench_job (id, device_class, envelope, posted, expires, device,"
            " lease_until, attempts, result) VALUES ('job-1', 'x86-onnxruntime', '{}', 1, 2, '', 0,"
            " 1, '')"
        )
        base.execute(
            "INSERT INTO device (id, device_class, key_id, public_key, token_hash, tags, facts,"
            " enrolled, release, engine, phase, frames, serves) VALUES ('bench-1',"
            " 'x86-onnxruntime', 'k', '', 'bench-1', '{}', ?, 1, '', '', 'idle', 0, 0)",
            (facts,),
        )
    base.close()


def fill_0003(path: Path) -> None:
    """What revision 0003 brought: a stage by selector, a retry and a stored decision."""
    with sqlite3.connect(path) as base:
        base.execute(
            "UPDATE stage SET percent = NULL, approved_by = 'operator' WHERE \"index\" = 1"
        )
        base.execute("UPDATE rollout SET priority = 7")
        base.execute("UPDATE deployment SET begun = assigned, agreement = 0.98 WHERE id = 'de-0'")
        base.execute("UPDATE deployment SET attempt = 2, retry_of = 'de-0' WHERE id = 'de-1'")
        spec = wire.decode(SPEC.encode(), RolloutSpec, "spec")
        gate, facts = spec.stages[0].gate, GateFacts(cohort=())
        evidence = Evidence(gate, facts, 9.0, judge(gate, facts, 9.0))
        said = evidence.decision
        base.execute(
            "INSERT INTO decision (rollout, stage, at, verdict, reason, evidence)"
            " VALUES ('ro-1', 0, 9, ?, ?, ?)",
            (said.verdict, said.reason, zlib.compress(wire.encode(evidence))),
        )
    base.close()


def fill_0004(path: Path) -> None:
    """What revision 0004 brought: people, their tokens and approvals, boards that wait."""
    with sqlite3.connect(path) as base:
        base.execute(
            "INSERT INTO operator (name, password_hash, roles, scope, created)"
            " VALUES ('ann', '', '[\"approver\"]', '', 1)"
        )
        base.execute(
            "INSERT INTO api_token (id, name, user, token_hash, roles, scope, created)"
            " VALUES ('tk-1', 'ci', 'ann', 'h', '[\"approver\"]', '', 1)"
        )
        base.execute(
            "INSERT INTO approval (rollout, stage, person, at) VALUES ('ro-1', 1, 'ann', 2)"
        )
        base.execute(
            "INSERT INTO pending_device (fingerprint, name, enrolment, address, first_asked,"
            " last_asked, state) VALUES ('f', 'cam-9', '{}', '::1', 1, 1, 'waiting')"
        )
        base.execute("UPDATE device SET suspected_clone = 1, suspicion = 'two' WHERE id = 'cam-1'")
    base.close()


def fill_0005(path: Path) -> None:
    """What revision 0005 brought: what a board has signed that it runs."""
    with sqlite3.connect(path) as base:
        base.execute(
            "INSERT INTO attestation (device, boot_id, seq, received, event, release, engine,"
            " manifest, published, refused, key, envelope)"
            " VALUES ('cam-0', 'boot', 2, 1, 'confirmed', '1.0', 'e', 'm', 1, '', '{}', '{}')"
        )
    base.close()


def fill_0006(path: Path) -> None:
    """What revision 0006 brought: who leads, what changed, and which reports were taken."""
    with sqlite3.connect(path) as base:
        base.execute("INSERT INTO lease (name, holder, fence, expires) VALUES ('lead', 'a', 1, 2)")
        base.execute("INSERT INTO change (id, kind, subject) VALUES (1, 'device', 'cam-0')")
        base.execute(
            "INSERT INTO report_ledger (device, boot_id, taken, telemetry, received)"
            " VALUES ('cam-0', 'earlier', '0-7', NULL, 1)"
        )
    base.close()


def fill_0007(path: Path) -> None:
    """What revision 0007 brought: what happened, who is told of it, what boards measured."""
    with sqlite3.connect(path) as base:
        base.execute(
            "INSERT INTO event (id, at, kind, subject, data)"
            " VALUES (1, 1, 'device.enrolled', 'cam-0', '{}')"
        )
        base.execute(
            "INSERT INTO webhook (id, url, kinds, secret, created, enabled, failures, reason)"
            " VALUES ('wh-0', 'https://example.org', '[\"*\"]', 's', 1, 1, 0, '')"
        )
        base.execute(
            "INSERT INTO telemetry (level, start, device_class, release, body)"
            " VALUES ('hour', 0, 'x86-onnxruntime', '1.0', '{}')"
        )
    base.close()


def fill_0008(path: Path) -> None:
    """What revision 0008 brought: filters that people keep, and what gates rest on."""
    with sqlite3.connect(path) as base:
        base.execute(
            "INSERT INTO saved_filter (user, name, selector, state)"
            " SELECT name, 'mine', 'tag.site==a', '' FROM operator"
        )
        base.execute("UPDATE stage SET findings = '[]'")
    base.close()


#: Every released revision, with what it brought; a new one comes with data of its own.
REVISIONS: dict[str, Callable[[Path], None]] = {
    "0001": fill, "0002": fill_0002, "0003": fill_0003, "0004": fill_0004, "0005": fill_0005,
    "0006": fill_0006, "0007": fill_0007, "0008": fill_0008,
}  # fmt: skip


def database_of(path: Path, revision: str) -> dict[str, int]:
    """Makes a database as a server of a revision left it; returns table → rows."""
    for each, filler in REVISIONS.items():
        command.upgrade(config(path), each)
        filler(path)
        if each == revision:
            break
    with sqlite3.connect(path) as base:
        base.execute(
            "INSERT INTO report (device, boot_id, seq, received, deployment, phase, body)"
            " VALUES ('cam-0', 'boot', 3, 1, 'de-0', 'confirmed', '{}')"
        )
    base.close()
    return rows(path)


def rows(path: Path) -> dict[str, int]:
    with sqlite3.connect(path) as base:
        names = [
            each for (each,) in base.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        found = {each: base.execute(f"SELECT count(*) FROM \"{each}\"").fetchone()[0]
                 for each in names}  # fmt: skip
    base.close()
    return found


def test_every_revision_has_data_to_be_tried_with() -> None:
    scripts = ScriptDirectory.from_config(config(Path("unused")))
    known = [each.revision for each in scripts.walk_revisions()]
    head = scripts.get_current_head()
    assert set(known) - {head} <= set(REVISIONS), "data of a revision is missing"


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_rollout_of_an_earlier_server_goes_on(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "kedge.db"
    before_rows = database_of(path, revision)
    engine = connect(path)
    upgrade(engine)
    assert {each: rows(path)[each] for each in before_rows} == before_rows, "nothing is lost"
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    stored = 0 if revision < "0003" else 1
    with Session(engine) as session, session.begin():
        before = service.info(session, service.find(session, "ro-1"), 10)
        assert [each.healthy for each in before.stages] == [1, 1]
        assert progress.look(session, "ro-1", 10)
        after = service.info(session, service.find(session, "ro-1"), 10)
        assert [each.state for each in after.stages] == ["passed", "running"]
        replayed = service.replay(session, "ro-1")
        assert [each.same for each in replayed] == [True] * (stored + 1)
        devices = {each.id: each.serves for each in service_devices.search(session, "", "")}
        assert devices.pop("bench-1", False) is False
        assert devices == {"cam-0": True, "cam-1": True}
    with sqlite3.connect(path) as base:
        found = dict(base.execute("SELECT id, begun FROM deployment").fetchall())
    base.close()
    assert found == {"de-0": 5.0, "de-1": None}, "who had spoken had taken it up"
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_older_database_is_backed_up_and_checked_as_it_is(tmp_path: Path, revision: str) -> None:
    """Before an upgrade one makes a backup: with the new program, of the old database."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "kedge.db"
    before = database_of(path, revision)
    trust = keys.create(tmp_path / "trust").online.parent
    contents = backup(tmp_path / "data", trust, tmp_path / "kept.tar", 10)
    assert contents.revision == revision
    assert rows(path) == before, "nothing was migrated"
    restore(tmp_path / "kept.tar", tmp_path / "again", None)
    assert {each: rows(tmp_path / "again" / "kedge.db")[each] for each in before} == (
        before | {"audit": before["audit"] + 1}
    )


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


def test_a_postgresql_database_without_an_encoding_holds_text(postgresql: Postgres) -> None:
    engine = connect(postgresql.plain())
    upgrade(engine)
    with transaction(engine) as session:
        record(session, "jörg", "say", "cam-1", "naïve 漢字")
    with transaction(engine) as session:
        row = session.exec(select(AuditRow)).one()
        assert (row.actor, row.detail) == ("jörg", "naïve 漢字")
    engine.dispose()
