"""The scheduler's lease, and changes that servers hear of, on both databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from kedge_server import scheduler
from kedge_server.database import connect, transaction, upgrade
from kedge_server.replicas import changes
from kedge_server.replicas.lease import Lease
from kedge_server.replicas.tables import LeaseRow
from kedge_shared.errors import InputError, StorageError
from tests.server.both import database  # noqa: F401
from tests.sim.world import World
from tests.waiting import PATIENCE


@pytest.fixture
def engine(tmp_path: Path, database: str) -> Iterator[Engine]:  # noqa: F811
    found = connect(database or tmp_path / "kedge.db")
    upgrade(found)
    yield found
    found.dispose()


def expire(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(update(LeaseRow).values(expires=1.0))


def test_one_leads_until_it_is_silent_for_too_long(engine: Engine) -> None:
    first, second = Lease(60), Lease(60)
    with transaction(engine) as session:
        assert first.take(session)
    with transaction(engine) as session:
        assert not second.take(session)
        assert not second.holds(session)
        assert not first.take(session), "renewed, not taken anew"
        assert first.holds(session)
    expire(engine)
    with transaction(engine) as session:
        assert second.take(session)
    with transaction(engine) as session:
        assert not first.holds(session), "its token is fenced off"
        assert not first.take(session)
        assert second.holds(session)
    assert second.fence == 2


def test_who_gives_up_is_followed_at_once(engine: Engine) -> None:
    first, second = Lease(60), Lease(60)
    with transaction(engine) as session:
        first.take(session)
    with transaction(engine) as session:
        first.give_up(session)
    with transaction(engine) as session:
        assert second.take(session)
        assert first.fence is None


def test_a_holder_that_overslept_may_renew_if_nobody_came(engine: Engine) -> None:
    lease = Lease(60)
    with transaction(engine) as session:
        lease.take(session)
    expire(engine)
    with transaction(engine) as session:
        assert not lease.take(session)
        assert (lease.fence, lease.holds(session)) == (1, True)


def test_nobody_takes_over_in_the_midst_of_what_the_holder_does(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite is one server's alone")
    holder, other = Lease(60), Lease(60)
    with transaction(engine) as session:
        holder.take(session)
    expire(engine)
    taken: list[float] = []

    def take() -> None:
        with transaction(engine) as session:
            other.take(session)
        taken.append(time.monotonic())

    with Session(engine) as session, session.begin():
        assert holder.holds(session)
        thread = threading.Thread(target=take)
        thread.start()
        time.sleep(0.5)
        done = time.monotonic()
    thread.join(PATIENCE)
    assert taken[0] > done


def test_changes_come_in_the_order_of_commits_and_only_if_they_are_committed(
    engine: Engine,
) -> None:
    with transaction(engine) as session:
        changes.note(session, "device", "cam-1")
        changes.note(session, "device", "cam-1")
        changes.note(session, "rollout", "ro-1")
        assert changes.newest(session) == 0, "written with the last of it"
    with pytest.raises(ZeroDivisionError), transaction(engine) as session:
        changes.note(session, "device", "cam-2")
        raise ZeroDivisionError
    with transaction(engine) as session:
        found = changes.since(session, 0)
        assert found.known == (("device", "cam-1"), ("rollout", "ro-1"))
        assert changes.since(session, found.upto).known == ()


def test_who_is_too_far_behind_reads_everything(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "KEPT", 5)
    for each in range(8):
        with transaction(engine) as session:
            changes.note(session, "device", f"cam-{each}")
    with transaction(engine) as session:
        changes.forget_old(session)
        assert changes.since(session, 0).known is None
        assert len(changes.since(session, 5).known or ()) == 3


def test_writers_of_changes_wait_for_one_another(engine: Engine) -> None:
    """Or a reader would see the later one's id first, and never look for the earlier one's."""
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time anyway")
    slow, told = threading.Event(), threading.Event()

    def first() -> None:
        with Session(engine) as session, session.begin():
            changes.note(session, "device", "slow")
            for last in session.info.pop("at_commit"):
                last(session)
            told.set()
            slow.wait(PATIENCE)

    thread = threading.Thread(target=first)
    thread.start()
    assert told.wait(PATIENCE)

    def second() -> None:
        with transaction(engine) as session:
            changes.note(session, "device", "fast")

    other = threading.Thread(target=second)
    other.start()
    time.sleep(0.3)
    with transaction(engine) as session:
        assert changes.since(session, 0).known == (), "the fast one must not be seen alone"
    slow.set()
    thread.join(PATIENCE)
    other.join(PATIENCE)
    with transaction(engine) as session:
        known = changes.since(session, 0).known
    assert known == (("device", "slow"), ("device", "fast"))


def test_only_the_holder_looks_at_gates_and_renews(running: World) -> None:
    device = running.enrol("cam-1")
    running.publish("1.0", 10)
    rollout = running.roll_out("1.0").id
    device.live()
    context = running.context
    with transaction(context.engine) as session:
        session.execute(update(LeaseRow).values(holder="another", fence=9))
    version = context.repository.timestamp_version
    scheduler.tick(context)
    scheduler.renew(context)
    assert running.operator.rollout(rollout).state == "running"
    assert context.repository.timestamp_version == version
    expire(context.engine)
    scheduler.lead(context)
    scheduler.tick(context)
    assert running.operator.rollout(rollout).state == "completed"


@pytest.mark.parametrize("url", ["mysql://a/b", "postgresql", "sqlite:///x"])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="no PostgreSQL URL"):
        connect(url)


def test_a_database_that_is_away_is_told_without_its_password() -> None:
    pytest.importorskip("psycopg")
    engine = connect("postgresql://kedge:secret@127.0.0.1:9/none")
    with pytest.raises(StorageError, match="cannot be used") as found:
        upgrade(engine)
    assert "secret" not in str(found.value)
    assert "kedge" in str(found.value)
    with pytest.raises(OperationalError), transaction(engine) as session:
        changes.newest(session)
