"""What a stranger, a board or a hostile name can do to the server and to who looks at it."""

from __future__ import annotations

import ast
import importlib
import io
import re
import socket
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx
import pytest
import typer
from rich.console import Console

from kedge_server.operator import show
from kedge_shared import api
from kedge_shared.client import check_url
from kedge_shared.errors import InputError, KedgeError, one_line
from tests.sim.world import TOKEN, World
from tests.waiting import PATIENCE

ESCAPE = "\x1b]0;owned\x07\x1b[2J\r\nFAKE LINE\u202e [red]bold[/red]"
OUTSIDE = [
    "/tuf/metadata/..%2f..%2fkedge.db", "/tuf/metadata/1...%2froot.json", "/tuf/metadata/0.json",
    "/tuf/metadata/99999999999999999999.root.json", "/tuf/metadata/-1.root.json",
    "/tuf/targets/..%2f..%2foperator.token", "/tuf/targets/%2fetc%2fpasswd",
    "/tuf/targets/models/%00", "/api/v1/artifacts/..%2f..%2foperator.token",
    "/api/v1/artifacts/" + "A" * 64, "/api/v1/artifacts/%2e%2e",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_what_is_served(running: World, path: str) -> None:
    """Sent as it stands: clients tidy such paths up."""
    answer = raw(running, f"GET {path} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n")
    assert answer.split()[1] in {b"400", b"404", b"405", b"422"}, answer[:200]
    assert TOKEN.encode() not in answer
    assert b"root:" not in answer


def raw(world: World, head: str) -> bytes:
    parts = urlsplit(world.url)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=PATIENCE) as line:
        line.sendall(f"{head}Host: x\r\nConnection: close\r\n\r\n".encode())
        found = b""
        while chunk := line.recv(65536):
            found += chunk
    return found


@pytest.mark.parametrize("path", ["/api/v1/releases", "/api/v1/nothing", "/api/v1/device/poll"])
def test_every_answer_bears_the_security_headers(running: World, path: str) -> None:
    headers = running.operator.http.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"


def test_no_header_is_made_of_what_was_asked(running: World) -> None:
    injected = "/api/v1/artifacts/%0d%0aSet-Cookie:%20a=b"
    answer = httpx.get(running.url + injected, headers={"Authorization": f"Bearer {TOKEN}"})
    assert "set-cookie" not in answer.headers
    assert answer.status_code in {400, 404, 422}


def test_an_answer_never_repeats_a_token(running: World) -> None:
    wrong = "a-token-of-somebody-else"
    answer = httpx.get(
        f"{running.url}/api/v1/releases", headers={"Authorization": f"Bearer {wrong}"}
    )
    assert answer.status_code == 401
    assert wrong not in answer.text


def test_text_from_elsewhere_is_one_harmless_line() -> None:
    for text in (one_line(ESCAPE), str(KedgeError(ESCAPE))):
        assert text.isprintable()
        assert "FAKE LINE" in text, "it can still be read"


def test_what_a_board_says_cannot_drive_the_operators_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(show, "_console", Console(file=out, width=200, force_terminal=False))
    stage = api.StageInfo(
        index=0, percent=100, state="failed", devices=1, healthy=0, failed=1, undecided=0,
        pending=0, verdict="fail", reason=ESCAPE,
    )  # fmt: skip
    found = api.RolloutInfo(
        id="ro-1", model="shapes", release="1.0", state="halted", reason=ESCAPE, recall=False,
        created=0.0, finished=None, stages=(stage,),
    )  # fmt: skip
    show.rollout(found)
    out.write(show.progress_line(found))
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[red]bold[/red]" in text, "no markup is made of it"


def options() -> Iterator[tuple[str, click.Option]]:
    for entry in entry_points(group="kedge.commands"):
        if not entry.value.startswith(("kedge_server", "kedge_builder.publishing", "kedge_agent")):
            continue
        loaded = entry.load()
        app = loaded if isinstance(loaded, typer.Typer) else typer.Typer()
        if app is not loaded:
            app.command()(loaded)
        yield from _options(entry.name, typer.main.get_command(app))


def _options(name: str, command: Any) -> Iterator[tuple[str, click.Option]]:
    for each in getattr(command, "commands", {}).values():
        yield from _options(f"{name} {each.name}", each)
    for each in command.params:
        yield name, each


def test_no_secret_is_given_on_a_command_line() -> None:
    """Whoever lists processes would read it: secrets are files or variables."""
    seen = 0
    for name, option in options():
        seen += 1
        words = set((option.name or "").split("_"))
        if words & {"token", "key", "keys", "secret", "pin", "password", "passphrase"}:
            assert isinstance(option.type, click.Path) or "path" in str(option.type).lower(), (
                f"{name} {option.name} takes a value"
            )
    assert seen > 20


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://fleet.example", True), ("http://127.0.0.1:8470", True),
        ("http://localhost", True), ("http://[::1]:8470", True),
        ("http://fleet.example", False), ("http://127.0.0.1.evil.example", False),
        ("http://127.0.0.1@evil.example", False), ("ftp://127.0.0.1", False),
    ],
)  # fmt: skip
def test_tokens_cross_no_wire_in_the_clear(url: str, taken: bool) -> None:
    if taken:
        assert check_url(url) == url
        return
    with pytest.raises(InputError):
        check_url(url)


def test_keys_and_tokens_are_for_their_owner_alone(running: World) -> None:
    kept = [*running.trust.offline.glob("*.key"), *running.trust.online.glob("*.key")]
    assert len(kept) == 5
    for each in kept:
        assert each.stat().st_mode & 0o077 == 0, each
    assert Path(running.home / "server").stat().st_mode & 0o077 == 0


SECRET = re.compile(r"token|secret|passphrase|password|signature|hmac")


@pytest.mark.parametrize("package", ["kedge_server", "kedge_shared", "kedge_agent"])
def test_no_secret_is_compared_letter_by_letter(package: str) -> None:
    """``==`` ends at the first letter that differs, and so tells how many were right."""
    compared, folder = 0, Path(str(importlib.import_module(package).__file__)).parent
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Compare):
                continue
            if not any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops):
                continue
            compared += 1
            sides = [ast.unparse(each) for each in (node.left, *node.comparators)]
            # A column makes SQL of it, and a table's name is no secret.
            if any(re.match(r"(col\()?[A-Z]\w*Row\.", each) for each in sides):
                continue
            sides = [each.lower() for each in sides]
            # A comparison with a literal (a header's scheme, an empty text) tells nothing secret.
            literal = any(isinstance(each, ast.Constant) for each in (node.left, *node.comparators))
            assert literal or not any(map(SECRET.search, sides)), f"{file}:{node.lineno} {sides}"
    assert compared > 20
