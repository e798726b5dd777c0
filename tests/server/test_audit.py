"""``kedge audit``: the chain on the server and in an export, and what was done to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from kedge_server.operator.audit_cli import audit, entries
from kedge_shared.audit import FIRST, AuditEntry, chain, verify
from kedge_shared.errors import InputError, KedgeError
from tests.sim.world import TOKEN, World, world


def made(count: int) -> list[AuditEntry]:
    found, previous = [], FIRST
    for at in range(1, count + 1):
        digest = chain(previous, at / 3, "otto", "look", f"cam-{at}", "é\n")
        found.append(
            AuditEntry(id=at, at=at / 3, actor="otto", action="look", subject=f"cam-{at}",
                       detail="é\n", previous=previous, hash=digest)
        )  # fmt: skip
        previous = digest
    return found


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("fleet")) as found:
        for at in range(3):
            found.enrol(f"cam-{at}")
        yield found


def kedge(*arguments: str, url: str = "http://127.0.0.1:1") -> tuple[str, KedgeError | None]:
    result = CliRunner().invoke(
        audit, list(arguments), env={"KEDGE_SERVER": url, "KEDGE_TOKEN": TOKEN}
    )
    error = result.exception
    if error is not None and not isinstance(error, KedgeError):
        raise error
    return result.output, error


@pytest.mark.parametrize(
    "field", ["at", "actor", "action", "subject", "detail", "previous", "hash"]
)
def test_an_entry_that_was_altered_in_any_field_is_named(field: str) -> None:
    rows = made(5)
    value: object = 7.0 if field == "at" else FIRST
    rows[2] = replace(rows[2], **{field: value})  # type: ignore[arg-type]
    found = verify(rows)
    assert (found.broken_id, found.entries) == (3, 2)


@pytest.mark.parametrize("change", ["taken out", "doubled", "moved", "put in"])
def test_what_is_taken_out_doubled_moved_or_put_in_is_named(change: str) -> None:
    rows = made(5)
    if change == "taken out":
        del rows[2]
    elif change == "doubled":
        rows.insert(2, rows[1])
    elif change == "moved":
        rows[2], rows[3] = rows[3], rows[2]
    else:
        rows.insert(2, made(1)[0])
    assert verify(rows).broken_id is not None
    assert verify(made(5)).broken_id is None


def test_what_was_cut_off_shows_beside_a_head_alone() -> None:
    rows = made(5)
    head = (5, rows[4].hash[:16])
    assert verify(rows, head).head is True
    assert verify(rows[:4]).broken_id is None
    assert verify(rows[:4], head).head is False
    assert verify(rows, (4, rows[4].hash)).head is False


def test_the_first_entry_that_does_not_hold_is_named(fleet: World, tmp_path: Path) -> None:
    out = tmp_path / "audit.jsonl"
    assert kedge("export", str(out), url=fleet.url)[1] is None
    said, error = kedge("verify", str(out))
    assert error is None, "offline, nothing listens there"
    online, error = kedge("verify", "--json", url=fleet.url)
    assert error is None
    found = json.loads(online)
    assert (found["broken_id"], found["entries"] >= 6) == (None, True)
    head = f"{found['last_id']}:{found['last_hash']}"
    assert head in said
    lines = out.read_bytes().splitlines(keepends=True)
    for altered, ident in (
        ([*lines[:2], lines[2].replace(b'"actor":"', b'"actor":"x'), *lines[3:]], 3),
        (lines[:1] + lines[2:], 3),
    ):
        out.write_bytes(b"".join(altered))
        _, error = kedge("verify", str(out))
        assert error is not None
        assert (error.exit_code, f"entry {ident} does not hold" in str(error)) == (5, True)
    out.write_bytes(b"".join(lines[:-1]))
    assert kedge("verify", str(out))[1] is None
    _, error = kedge("verify", str(out), "--head", head)
    assert error is not None
    assert (error.exit_code, "does not stand" in str(error)) == (5, True)


def test_a_log_that_was_altered_in_the_database_is_seen(fleet: World) -> None:
    with fleet.context.engine.begin() as connection:
        actor = connection.execute(text("SELECT actor FROM audit WHERE id = 2")).scalar_one()
        connection.execute(text("UPDATE audit SET actor = 'nobody' WHERE id = 2"))
    try:
        said, error = kedge("verify", "--json", url=fleet.url)
        assert json.loads(said)["broken_id"] == 2
        assert error is not None
        assert error.exit_code == 5
    finally:
        with fleet.context.engine.begin() as connection:
            restored = text("UPDATE audit SET actor = :actor WHERE id = 2")
            connection.execute(restored, {"actor": actor})


def test_pages_follow_one_another(fleet: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kedge_shared.operator_client._PAGE", 2)
    said, _ = kedge("verify", "--json", url=fleet.url)
    assert json.loads(said)["entries"] >= 6


@pytest.mark.parametrize("line", [b"no json\n", b'{"id":1}\n', b"\xff\n"])
def test_an_export_that_cannot_be_read_is_named_by_its_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(line)
    with pytest.raises(InputError, match="line 1 cannot be read"):
        list(entries(path))
    assert not isinstance(kedge("verify", str(path))[1], type(None))


@pytest.mark.parametrize("head", ["7", "x:ab", "7:", "7:XYZ"])
def test_a_head_that_is_none_is_refused(tmp_path: Path, head: str) -> None:
    _, error = kedge("verify", str(tmp_path), "--head", head)
    assert isinstance(error, InputError)
