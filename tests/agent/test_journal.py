"""The journal: whole states only, with their reports, whatever kills the writer."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kedge_agent.journal import Journal, open_read_only
from kedge_agent.state import Deployment, State, read_state
from kedge_shared.errors import StorageError
from kedge_shared.phases import Phase
from kedge_shared.protocol import ManifestRef, Report, Verdict, Window
from tests.shared import samples

REF = ManifestRef(path="models/m/1/c/manifest.json", sha256="a" * 64, length=10)


def state(counter: int) -> State:
    deployment = Deployment(
        id=f"de-{counter}", rollout="ro", intent="install", manifest=REF, counter=counter,
        phase=Phase.PROBATION,
    )  # fmt: skip
    return State(counter=counter, deployment=deployment)


def report(counter: int) -> Report:
    return Report(
        device="cam", boot_id="b", seq=0, created=counter, deployment=f"de-{counter}",
        workload="main", phase=Phase.PROBATION, engine="", release="", verdict=Verdict(code="ok"),
    )  # fmt: skip


def test_a_state_and_its_report_are_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(state(1), report(1))
    journal.close()
    again = Journal(tmp_path)
    assert again.state == state(1)
    assert [each.deployment for _, each in again.waiting(10)] == ["de-1"]
    again.close()


def test_a_commit_is_on_the_medium_before_anybody_relies_on_it(tmp_path: Path) -> None:
    """In WAL mode SQLite syncs commits at 2, FULL, alone (its documentation of the pragma)."""
    journal = Journal(tmp_path)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    journal.close()


def test_reports_wait_until_they_are_acknowledged_and_numbers_never_repeat(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for each in range(3):
        journal.queue(report(each))
    first = [seq for seq, _ in journal.waiting(2)]
    journal.sent(first)
    assert [each.created for _, each in journal.waiting(10)] == [2]
    journal.sent([seq for seq, _ in journal.waiting(10)])
    journal.close()
    again = Journal(tmp_path)
    again.queue(report(9))
    ((seq, _),) = again.waiting(10)
    assert seq > max(first)
    assert again.name == journal.name
    again.close()


def test_the_spool_is_bounded_drops_the_oldest_windows_first_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kedge_agent.journal.OUTBOX_LIMIT", 4)
    journal = Journal(tmp_path)
    for each in range(6):
        window = Window(started=each, seconds=1) if each % 2 else None
        journal.queue(replace(report(each), window=window))
    assert [each.created for _, each in journal.waiting(100)] == [0, 2, 4, 5]
    assert journal.lost == 2
    journal.queue(report(6))
    journal.queue(report(7))
    assert [each.created for _, each in journal.waiting(100)] == [2, 4, 6, 7]
    journal.close()
    again = Journal(tmp_path)
    assert again.lost == 4
    again.close()


WRITER = """
import sys
from pathlib import Path
from kedge_agent.journal import Journal
from tests.agent.test_journal import report, state
journal = Journal(Path(sys.argv[1]))
at = journal.state.counter
while True:
    at += 1
    journal.save(state(at), report(at))
    print(at, flush=True)
"""


def test_kill_9_at_any_moment_leaves_the_last_whole_state(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    seen = 0
    for round_ in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=root, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.03 + 0.017 * round_)
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read()
        writer.wait()
        writer.stdout.close()
        told = [int(each) for each in rest.split("\n")[:-1]]
        journal = Journal(tmp_path)
        # What was told is there; at most one more was written and not told any more.
        assert told == [] or journal.state.counter in {told[-1], told[-1] + 1}
        assert journal.state == state(journal.state.counter)
        assert journal.waiting(10_000)[-1][1].created == journal.state.counter
        assert journal.state.counter > seen
        seen = journal.state.counter
        journal.close()


def test_a_phase_of_another_version_rolls_back(tmp_path: Path) -> None:
    raw = msgspec.json.decode(msgspec.json.encode(state(1)))
    raw["deployment"]["phase"] = "levitating"
    found = read_state(msgspec.json.encode(raw))
    assert found.deployment is not None
    assert found.deployment.phase is Phase.ROLLING_BACK


def test_a_full_disk_keeps_the_old_state(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.save(state(1))
    journal._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match="cannot be written"):
        journal.save(
            msgspec.structs.replace(
                state(2), quarantine={str(each): "x" * 500 for each in range(100)}
            )
        )
    assert journal.state == state(1)
    journal.close()
    again = Journal(tmp_path)
    assert again.state == state(1)
    again.close()


def test_slots_that_stay_the_same_need_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.show_slots()

    def full(path: Path, _: bytes) -> None:
        raise StorageError(f"disk is full, {path.name} was not written")

    monkeypatch.setattr("kedge_agent.journal.write_whole", full)
    journal.show_slots()
    journal.save(state(2))
    with pytest.raises(StorageError, match="disk is full"):
        journal.show_slots()
    journal.close()


def test_a_full_disk_keeps_what_the_server_has_acknowledged(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.queue(report(1))
    ((seq, _),) = journal.waiting(10)
    journal._db.execute("PRAGMA query_only = 1")
    with pytest.raises(StorageError, match="cannot be written"):
        journal.sent([seq])
    assert len(journal.waiting(10)) == 1
    journal._db.execute("PRAGMA query_only = 0")
    journal.sent([seq])
    assert journal.waiting(10) == []
    journal.close()


def test_a_journal_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal._db.execute("DROP TABLE outbox")
    with pytest.raises(StorageError, match="cannot be read"):
        journal.waiting(10)
    journal.close()


def test_a_damaged_journal_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database" * 500)
    with pytest.raises(StorageError, match="cannot be opened"):
        Journal(tmp_path)


def test_status_reads_while_the_updater_writes(tmp_path: Path) -> None:
    assert open_read_only(tmp_path) is None
    journal = Journal(tmp_path)
    journal.save(state(3))
    assert open_read_only(tmp_path) == state(3)
    with pytest.raises(sqlite3.ProgrammingError):
        journal.close()
        journal._db.execute("SELECT 1")


def test_what_a_board_is_is_told_once_until_it_changes(tmp_path: Path) -> None:
    facts = samples.facts()
    for told in (facts, facts, replace(facts, agent="2.0"), replace(facts, agent="2.0"), facts):
        journal = Journal(tmp_path)
        journal.tell_facts(told, report(1))
        journal.close()
    journal = Journal(tmp_path)
    waiting = [each.facts for _, each in journal.waiting(10)]
    assert waiting == [facts, replace(facts, agent="2.0"), facts]
    journal.close()
