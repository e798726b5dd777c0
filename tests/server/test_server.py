"""The server as a whole: settings, migrations, the description of its interface."""

from __future__ import annotations

import logging
import socket
import stat
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from kedge_server.app import TOKEN_FILE, open_context, operator_token
from kedge_server.settings import ServerSettings
from kedge_server.tables import METADATA
from kedge_shared.errors import InputError, ServiceError
from kedge_shared.servers import read_token
from tests.sim.world import World, serve, world


def test_models_and_migrations_agree(running: World) -> None:
    with running.context.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_the_description_is_complete(running: World) -> None:
    body = running.operator.http.get("/openapi.json").json()
    operations = [
        (path, method, operation)
        for path, methods in body["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 20
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation.get("summary"), where
        assert operation.get("description") or path == "/healthz", where
        assert operation.get("tags"), where
        success = next(each for code, each in operation["responses"].items() if code[0] == "2")
        for kind, content in success.get("content", {}).items():
            if kind == "application/json":
                assert content["schema"], where
    assert body["components"]["securitySchemes"]


def test_the_operator_token_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    settings = ServerSettings(data=tmp_path, trust=tmp_path)
    made = operator_token(settings)
    assert operator_token(settings) == made
    assert len(made) >= 32
    assert stat.S_IMODE((tmp_path / TOKEN_FILE).stat().st_mode) == 0o600


def test_offline_keys_on_the_server_are_refused(tmp_path: Path) -> None:
    with world(tmp_path) as running:
        trust = running.trust
    (trust.online / "targets.key").write_bytes((trust.offline / "targets.key").read_bytes())
    with pytest.raises(InputError, match="must not hold it"):
        open_context(ServerSettings(data=tmp_path / "server", trust=tmp_path / "trust"))


def test_a_folder_without_keys_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        open_context(ServerSettings(data=tmp_path / "data", trust=tmp_path / "none"))
    assert "key" in str(refused.value)


def test_everything_survives_a_restart(running: World) -> None:
    running.publish("1.0", 10)
    device = running.enrol("cam-1")
    rollout = running.roll_out("1.0")
    device.live()
    running.tick()
    with serve(running.home, running.trust) as (_, url):
        answer = running.operator.http.get(f"{url}/api/v1/rollouts/{rollout.id}").json()
        assert answer["state"] == "completed"
        assert device.http.get(f"{url}/api/v1/device/poll").status_code == 200


def test_no_secret_is_stored_or_shown(running: World) -> None:
    from kedge_shared.api import TokenRequest

    token = running.operator.enrolment_tokens(TokenRequest())[0].token
    device = running.enrol("cam-1")
    secret = device.http.headers["Authorization"].split()[1]
    stored = b"".join(each.read_bytes() for each in (running.home / "server").glob("kedge.db*"))
    for each in (token, secret):
        assert each.encode() not in stored


def test_an_error_is_one_json_line_with_a_mend(running: World) -> None:
    body = running.operator.http.post("/api/v1/rollouts", json={"model": "shapes"})
    assert body.status_code == 422
    assert set(body.json()) == {"error", "mend"}
    assert running.operator.http.get("/api/v1/nowhere").status_code == 404


def test_a_second_server_keeps_off_the_folder(tmp_path: Path) -> None:
    from kedge_server.serve import _lock

    with _lock(tmp_path), pytest.raises(ServiceError, match="another server runs on"):
        _lock(tmp_path)
    _lock(tmp_path).close()


@pytest.mark.parametrize("content", [b"\xb1\x00", "café".encode(), b"two\nlines"])
def test_a_file_that_holds_no_token_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(InputError, match="token holds no operator token"):
        read_token(tmp_path / "token")


def test_a_sender_that_goes_away_is_no_bug_of_the_server(
    running: World, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("uvicorn.error").addHandler(caplog.handler)
    token = running.enrol("cam-1").http.headers["Authorization"]
    port = int(running.url.rsplit(":", 1)[1])
    head = f"POST /api/v1/device/reports HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(f"{head}Content-Length: 100\r\n\r\n[".encode())
        time.sleep(0.3)
    time.sleep(0.5)
    assert running.operator.rollouts() == []
    logging.getLogger("uvicorn.error").removeHandler(caplog.handler)
    assert caplog.records == []
