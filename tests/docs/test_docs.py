"""The documentation is as the code is, and can be built without internet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kedge_shared.operator_client import OperatorClient
from scripts import reference

ROOT = Path(__file__).parents[2]
#: Routes that boards use, not operators; and what browsers and Prometheus read.
NOT_OPERATORS = re.compile(r"/api/v1/(device/|enrol$)|/healthz|/metrics|/tuf/")
STALE = "run make docs-reference and look at what changed"


@pytest.mark.parametrize("name", ["cli.md", "settings.md", "api.md", "device-classes.md"])
def test_pages_made_from_the_code_are_as_the_code_is(name: str) -> None:
    assert (reference.FOLDER / name).read_text() == reference.pages()[name], STALE


def test_the_published_api_is_the_one_that_is_served() -> None:
    """Compared by what callers depend on: FastAPI's own wording changes from release to release."""
    published = json.loads((reference.FOLDER / "openapi.json").read_text())
    assert _skeleton(published) == _skeleton(reference.openapi()), STALE


def _skeleton(described: dict[str, Any]) -> dict[str, Any]:
    routes = {
        f"{method} {path}": (
            sorted((each["name"], each["in"]) for each in one.get("parameters", ())),
            json.dumps(one.get("requestBody"), sort_keys=True),
            json.dumps(one["responses"].get("200"), sort_keys=True),
        )
        for path, operations in described["paths"].items()
        for method, one in operations.items()
    }
    types = {
        name: (sorted(each.get("properties", ())), sorted(each.get("required", ())))
        for name, each in described["components"]["schemas"].items()
        if not name.startswith(("HTTPValidation", "Validation"))
    }
    return {"routes": routes, "types": types}


def test_every_route_of_operators_is_in_the_client() -> None:
    sources = "".join(
        (ROOT / "shared" / "kedge_shared" / f"{name}.py").read_text()
        for name in ("client", "event_client", "operator_client", "attestation")
    )
    sources = sources.replace("{_EVENTS}", "/api/v1/events")
    sources = sources.replace("{_WEBHOOKS}", "/api/v1/webhooks")
    called = {
        re.sub(r"\{[^}]*\}", "{}", each).partition("?")[0]
        for each in re.findall(r'"(/api/v1/[^"]*)"', sources)
    }
    routes = {re.sub(r"\{[^}]*\}", "{}", path) for path in reference.openapi()["paths"]
              if not NOT_OPERATORS.match(path)}  # fmt: skip
    # One method changes a rollout, whatever the route is called.
    routes = {re.sub(r"(/rollouts/\{\})/(approve|resume|retry)$", r"\1/{}", each)
              for each in routes}  # fmt: skip
    assert routes - called == set()
    assert OperatorClient.__doc__


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="install kedge[docs]")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+)"', page)
    assert [each for each in loaded if re.search(r"\.(js|css|woff2?)(\?|$)", each)] == []
    assert "follow_events" in (tmp_path / "site" / "reference" / "client.html").read_text()


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    pages = {str(each.relative_to(ROOT / "docs")) for each in (ROOT / "docs").rglob("*.md")}
    assert [each for each in sorted(pages) if each not in nav] == []
