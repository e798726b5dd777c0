"""A whole run, its logs, its database and its addresses: no token and no key is in any of them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kedge_agent.board import Board
from kedge_agent.server_client import ServerClient
from kedge_shared import api
from kedge_shared.errors import InputError
from kedge_shared.ids import check_name
from kedge_shared.manifest import read_manifest
from kedge_shared.wire import encode
from tests.shared import samples
from tests.sim.board import SimBoard
from tests.sim.device import SimDevice
from tests.sim.world import TOKEN, World


@pytest.fixture
def board(running: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimBoard:
    return SimBoard(running, tmp_path / "board", monkeypatch)


def secrets_of(world: World, board: SimBoard, access: str) -> dict[str, str]:
    """Everything that only one party may know, by what it is."""
    found = {
        "operator's token": TOKEN,
        "device's access token": access,
        "enrolment token": (board.folder / "token").read_text().strip(),
    }
    keys = [*world.trust.offline.glob("*.key"), *world.trust.online.glob("*.key"),
            board.folder / "state" / "device.key"]  # fmt: skip
    for each in keys:
        found[each.name] = "".join(each.read_text().splitlines()[1:-1])
    return found


def test_no_secret_is_in_any_log_url_or_table_of_a_whole_run(
    running: World, board: SimBoard, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    borne: list[str] = []
    real = ServerClient.authorise

    def authorise(client: ServerClient, token: str) -> None:
        borne.append(token)
        real(client, token)

    monkeypatch.setattr(ServerClient, "authorise", authorise)
    caplog.set_level(logging.DEBUG)
    board.telemetry_seconds = 0.2
    board.install()
    board.rest()
    out, err = capfd.readouterr()
    written = {
        "logs": caplog.text, "output": out + err,
        **{str(path): path.read_bytes().decode("latin-1")
           for path in (running.home / "server").rglob("*") if path.is_file()},
        "board's journal": "".join(
            path.read_bytes().decode("latin-1")
            for path in (board.folder / "state").glob("journal.db*")
        ),
    }  # fmt: skip
    assert "/api/v1/device/poll" in written["logs"], "the run is not logged at all"
    assert "1.0: confirmed" in written["output"]
    assert any(each.endswith("kedge.db") for each in written)
    for what, secret in secrets_of(running, board, borne[-1]).items():
        assert len(secret) >= 16, what
        for where, text in written.items():
            assert secret not in text, f"{what} is in {where}"


@pytest.mark.parametrize("name", ["cam\n", "cam\r\n", "a\nb", "cam\x1b[2J", "cam\u2028", "ca m"])
def test_no_name_holds_a_line_break(name: str) -> None:
    """Names stand in logs, headers and file names; a pattern's ``$`` lets one break through."""
    with pytest.raises(InputError):
        check_name("device", name)
    body = encode(samples.manifest()).replace(b'"shapes"', encode(name))
    with pytest.raises(InputError):
        read_manifest(body)


def test_a_board_of_such_a_name_is_not_enrolled(running: World) -> None:
    token = running.operator.enrolment_tokens(api.TokenRequest())[0].token
    board = SimDevice(running.url, "cam\n", "x86-onnxruntime", running.trust.root)
    assert board.enrol(token).status_code == 400
    board.http.close()


def test_what_a_board_logs_is_one_harmless_line(
    board: SimBoard, capfd: pytest.CaptureFixture[str]
) -> None:
    class Half:
        settings = board.settings

    Board.log(Half(), "evil\x1b[2J\nFAKE 12:00:00 cam-1 confirmed\u202e")  # type: ignore[arg-type]
    _, err = capfd.readouterr()
    assert err.count("\n") == 1
    assert err.strip().isprintable()
