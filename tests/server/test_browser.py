"""What every answer tells a browser, and what the API's reference loads: nothing of others."""

from __future__ import annotations

import re

import httpx
import pytest

from kedge_server.audit import routes
from kedge_server.headers import HEADERS
from tests.sim.world import TOKEN, World

KINDS = {
    "404": ("GET", "/nothing"), "401": ("GET", "/api/v1/releases"), "405": ("PATCH", "/healthz"),
    "200": ("GET", "/healthz"),
    "openapi": ("GET", "/openapi.json"), "docs": ("GET", "/docs"),
    "script": ("GET", "/docs/start.js"), "413": ("POST", "/api/v1/enrol"),
}  # fmt: skip


def test_every_kind_of_answer_bears_the_headers(running: World) -> None:
    for kind, (method, path) in KINDS.items():
        body, headers = b"", {}
        if kind == "413":
            body, headers = b"x" * 200_000, {"Authorization": "Bearer x"}
        answer = httpx.request(method, running.url + path, content=body, headers=headers)
        assert kind == str(answer.status_code) or answer.status_code == 200
        for name in HEADERS:
            assert name in answer.headers, f"{kind}: {name}"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_also_the_answer_to_a_bug_and_nothing_of_it_gets_out(
    running: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(routes.service, "newest", broken)
    answer = httpx.get(f"{running.url}/api/v1/audit", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["error"]
    for name, value in HEADERS.items():
        assert answer.headers[name] == value


def test_the_reference_loads_nothing_from_elsewhere(running: World) -> None:
    page = httpx.get(f"{running.url}/docs")
    assert "https://" not in page.text
    assert "http://" not in page.text
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "default-src 'none'" in policy
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 4
    for each in loaded:
        found = httpx.get(running.url + each)
        assert found.status_code == 200, f"{each}: {found.text[:200]}"
    script = httpx.get(f"{running.url}/docs/swagger-ui-bundle.js")
    assert len(script.content) > 500_000
    assert script.headers["content-type"].startswith("text/javascript")
    assert httpx.get(f"{running.url}/docs/core.py").status_code == 404
    assert httpx.get(f"{running.url}/docs/..%2fcore.py").status_code == 404
    assert httpx.get(f"{running.url}/redoc").status_code == 404
