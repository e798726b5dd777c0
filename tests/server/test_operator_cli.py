"""Operators' commands as people type them, against a running server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kedge_server.operator.show import span
from kedge_server.releases.comparing import Side, compare
from kedge_shared.cli import build_app
from kedge_shared.errors import InputError, KedgeError, ServiceError
from kedge_shared.events import EventInfo
from kedge_shared.manifest import Measured
from kedge_shared.servers import read_config
from tests.server.people import PASSWORD, staffed
from tests.shared import samples
from tests.sim.world import TOKEN, World

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with staffed(tmp_path_factory.mktemp("cli")) as found:
        found.publish("1.1", 11, override="a trial")
        yield found


@pytest.fixture
def run(fleet: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command; the configuration names the server "here", with the first token."""
    monkeypatch.setenv("KEDGE_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "token").write_text(TOKEN)
    app = build_app()

    def one(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    assert one("config", "add", "here", fleet.url, "--token-file", str(tmp_path / "token"))
    return one


def said(result: Result) -> KedgeError:
    assert isinstance(result.exception, KedgeError), result.output
    return result.exception


def test_who_logs_in_is_somebody_and_logging_out_revokes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    config = tmp_path / "config.yaml"
    result = run("login", "otto", "--password-file", str(tmp_path / "password"))
    assert result.exit_code == 0, result.output
    kept = read_config(config).servers["here"]
    token = Path(kept.token_file).read_text().strip()
    assert Path(kept.token_file).stat().st_mode & 0o777 == 0o600
    assert token not in config.read_text() + result.output
    assert "otto with the token login" in run("whoami").output
    assert run("logout").exit_code == 0
    assert not Path(kept.token_file).exists()
    assert "nobody is logged in" in str(said(run("logout")))
    monkey = tmp_path / "stolen"
    monkey.write_text(token)
    assert said(run("whoami", "--token-file", str(monkey))).exit_code == 6


def test_a_wrong_password_and_a_wrong_name_are_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("not this one")
    wrong = run("login", "otto", "--password-file", str(tmp_path / "password"))
    assert "name or password is wrong" in str(said(wrong))
    escape = run(
        "login", "otto", "--as", "../../etc", "--password-file", str(tmp_path / "password")
    )
    assert isinstance(escape.exception, InputError)


def test_a_server_is_named_used_and_forgotten(run: Run, fleet: World, tmp_path: Path) -> None:
    assert run("config", "add", "other", "https://other.example").exit_code == 0
    assert run("config", "use", "other").exit_code == 0
    assert said(run("whoami")).exit_code == 2, "it has no token"
    assert "admin" in run("whoami", "--server", "here").output
    assert run("config", "remove", "other").exit_code == 0
    listed = json.loads(run("config", "list", "--json").output)
    assert (listed["default"], list(listed["servers"])) == ("", ["here"])
    assert "there is no server 'other'" in str(said(run("config", "use", "other")))


def test_every_read_has_json(run: Run) -> None:
    for command in (
        "fleet health", "fleet telemetry", "fleet trust", "device list", "device show cam-0",
        "device tag cam-0", "device pending", "device announced", "release list",
        "release show shapes 1.0", "release compare shapes 1.0 1.1", "rollout list",
        "bench-job list",
        "audit list", "user list", "token list", "webhook list", "whoami", "config list",
    ):  # fmt: skip
        result = run(*command.split(), "--json")
        assert result.exit_code == 0, (command, result.output)
        json.loads(result.output)


def test_health_is_told_and_checked(run: Run, fleet: World) -> None:
    shown = run("fleet", "health", "--check")
    assert shown.exit_code == 0
    assert "x86-onnxruntime" in shown.output
    assert "nothing to see to" in shown.output
    fleet.context.repository.alarm = "the timestamp could not be signed"
    try:
        assert "could not be signed" in str(said(run("fleet", "health", "--check")))
    finally:
        fleet.context.repository.alarm = ""


def test_who_signs_is_told(run: Run) -> None:
    found = {each["role"]: each for each in json.loads(run("fleet", "trust", "--json").output)}
    assert list(found) == ["root", "targets", "snapshot", "timestamp"]
    assert found["root"]["threshold"] == len(found["root"]["keys"]) == 1


def test_tags_are_given_and_taken(run: Run) -> None:
    assert run("device", "tag", "cam-1", "line:3", "rack:x").output.split() == [
        "line:3", "rack:x", "site:a",
    ]  # fmt: skip
    taken = run("device", "tag", "cam-1", "--remove", "line", "--remove", "rack")
    assert taken.output.split() == ["site:a"]
    assert "is no tag" in str(said(run("device", "tag", "cam-1", "a b:c")))
    assert "has no value" in str(said(run("device", "tag", "cam-1", "ab")))


def test_releases_are_held_against_each_other(run: Run) -> None:
    (pair,) = json.loads(run("release", "compare", "shapes", "1.0", "1.1", "--json").output)
    found = {each["what"]: each for each in pair["settings"]}
    assert found["overrides.1.budget"]["after"] == "latency_p95_ms"
    assert found["overrides.1.budget"]["note"] == "new"
    assert pair["same"] > 20
    assert "no release shapes 9" in str(said(run("release", "compare", "shapes", "1.0", "9")))


def test_figures_of_different_machines_are_not_compared() -> None:
    def build(**measured: tuple[float, str]) -> dict[str, Side]:
        figures = tuple(Measured(what=key, value=value, machine=on)
                        for key, (value, on) in measured.items())  # fmt: skip
        return {"a": Side(replace(samples.manifest(), measured=figures))}

    before = build(map50_95=(0.5, "x"), latency_p95_ms=(20.0, "x"), gone=(1.0, "x"))
    after = build(map50_95=(0.6, "y"), latency_p95_ms=(10.0, "y"))
    (pair,) = compare(before, after)
    found = {each.what: each for each in pair.figures}
    assert found["map50_95"].change == "better", "accuracy is no matter of the machine"
    assert found["map50_95"].ratio == pytest.approx(0.2)
    assert (found["latency_p95_ms"].ratio, found["latency_p95_ms"].note) == (
        None, "measured on different machines",
    )  # fmt: skip
    assert found["gone"].after is None
    (alone,) = compare(before, {})
    assert alone.missing == "after"


def test_ids_are_never_cut_short(run: Run, fleet: World) -> None:
    rollout = fleet.roll_out("1.0")
    for command in ("rollout list", "audit list", "events"):
        assert rollout.id in run(*command.split()).output
    hook = json.loads(run("webhook", "add", "https://a.example/x", "--json").output)
    assert hook["id"] in run("webhook", "list").output
    assert "is no kind of event" in str(
        said(run("webhook", "add", "https://a.example", "--kind", "x"))
    )


def test_a_server_that_is_away_is_named(run: Run) -> None:
    error = said(run("device", "list", "--server", "http://127.0.0.1:9", "--token-file", __file__))
    assert isinstance(error, InputError), "no file of a program holds a token"
    away = run("config", "add", "away", "http://127.0.0.1:9")
    assert away.exit_code == 0
    assert "there is no server 'nowhere'" in str(said(run("device", "list", "--server", "nowhere")))


def test_watching_outlives_a_server_that_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from kedge_server.operator import watching

    class Client:
        answers = iter([ServiceError("away"), ServiceError("away"), "there"])

        def rollout(self, name: str) -> object:
            found = next(self.answers)
            if isinstance(found, ServiceError):
                raise found
            return found

    monkeypatch.setattr(watching, "_AGAIN_SECONDS", 0)
    told: list[str] = []
    found = watching._look(Client(), "ro-1", lambda: told.append("away"))  # type: ignore[arg-type]
    assert (found, told) == ("there", ["away", "away"])

    class Refuses:
        def rollout(self, name: str) -> object:
            raise ServiceError("there is no rollout", status=404)

    with pytest.raises(ServiceError):
        watching._look(Refuses(), "ro-1", lambda: None)  # type: ignore[arg-type]


def test_what_an_event_says_cannot_drive_the_terminal() -> None:
    from kedge_server.operator.event_cli import event_line

    event = EventInfo(id=1, at=0.0, kind="device.refused", subject="cam\x1b[2J",
                      data={"reason": "worse\nthan\x07"})  # fmt: skip
    line = event_line(event)
    assert line.startswith("1970-01-01 00:00:00  device.refused ")
    assert line.isprintable()


def test_times_are_said_as_people_say_them() -> None:
    assert [span(each) for each in (3, 119, 120, 7200, 172_800)] == [
        "3 s", "119 s", "2 min", "2 h", "2 days",
    ]  # fmt: skip
