"""The console over a large fleet: ``python benchmarks/console.py [--json] [--devices N]``.

One server process on one core. Each page is asked for by a session, and its processor time is what
the process took: on a machine that others use the time on the wall says little. What is kept
(`console/kept.py`) is worked out at the first request, which is told by itself; all others are what
people wait for. The first paint and the cost of a page that stands open are measured with Chromium,
where there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from statistics import median

import httpx

# Before the project's own: `python benchmarks/console.py` puts benchmarks/ on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import console_fleet
from benchmarks.common import Row, as_object, as_table
from benchmarks.console_fleet import CLASS, PASSWORD, USER, Seeded
from benchmarks.server_fleet import Running, kedge
from kedge_shared.accounts import HEADER_CSRF
from kedge_shared.machine import describe
from tests.sim.chromium import chromium, missing

_ROUNDS = 20
_TARGET_MS, _TARGET_PAINT_MS, _TARGET_KB, _TARGET_SHARE = 300.0, 1000.0, 300.0, 1.0
_OPEN_SECONDS = 60


def pages(seeded: Seeded) -> dict[str, str]:
    """Returns what is asked for: what it is → its path."""
    return {
        "fleet": "/",
        "devices": "/devices",
        "devices, a page further on": f"/devices?after={seeded.middle}",
        "devices of a tag": "/devices?q=tag.site==hall-7",
        "devices, a selector that few match": "/devices?q=memory_mb>=4096;tag.site=in=(hall-7)",
        "devices, a selector that none matches": "/devices?q=memory_mb>=999999",
        "devices that are silent": "/devices?state=silent",
        "one device": f"/devices/{seeded.middle}",
        "rollouts": "/rollouts",
        "rollouts, the oldest": "/rollouts?before=60",
        "a rollout over the fleet, running": f"/rollouts/{seeded.running}",
        "a rollout over the fleet, all boards": f"/rollouts/{seeded.running}?which=all",
        "a rollout over the fleet, completed": f"/rollouts/{seeded.completed}",
        "new rollout": "/rollouts/new",
        "enrolment": "/enrolments",
        "models": "/models",
        "a model": "/models/shapes",
        "a release": "/models/shapes/releases/1.2",
        "layers of a build": f"/models/shapes/releases/1.2/layers?class={CLASS}",
        "two releases": "/models/shapes/compare",
        "keys and trust": "/trust",
        "audit log": "/audit",
        "audit log, by a person": "/audit?actor=ada",
        "settings": "/settings",
        "users": "/settings/users",
        "one user": f"/settings/users/{USER}",
        "webhooks": "/settings/webhooks",
        "help with a selector": "/console/language?q=tag.si",
        "how many match": "/console/devices/count?q=tag.site==hall-7",
        "what an abort would do": f"/rollouts/{seeded.running}/confirm/halt",
    }


def _server(seeded: Seeded) -> AbstractContextManager[Running]:
    """Runs a server whose scheduler keeps still: what gates cost is benchmarks/rollout.py's."""
    return kedge(seeded.fleet, "--tick-seconds", "300")


def session(running: Running) -> httpx.Client:
    """Returns a client that has logged in."""
    client = httpx.Client(base_url=running.url, timeout=120)
    fields = {"name": USER, "password": PASSWORD}
    if client.post("/login", data=fields).status_code != 303:
        raise SystemExit("the benchmark's user cannot log in")
    return client


def page_rows(running: Running, client: httpx.Client, seeded: Seeded) -> Iterator[Row]:
    """Yields what pages cost: the first request, and the others."""
    for name, path in pages(seeded).items():
        first = _spent(running, client, path, 1)
        others = _spent(running, client, path, _ROUNDS)
        yield Row(name=f"{name}: first request", value=first, unit="ms", target=_TARGET_MS,
                  holds=first < _TARGET_MS)  # fmt: skip
        yield Row(name=f"{name}: each later one", value=others, unit="ms", target=_TARGET_MS,
                  holds=others < _TARGET_MS)  # fmt: skip


def _spent(running: Running, client: httpx.Client, path: str, rounds: int) -> float:
    before = running.cpu_seconds
    for _ in range(rounds):
        answer = client.get(path)
        if answer.status_code != 200:
            raise SystemExit(f"{path}: {answer.status_code} {answer.text[:300]}")
    return 1000 * (running.cpu_seconds - before) / rounds


def preview_row(running: Running, client: httpx.Client) -> Row:
    """Returns what a preview costs: it draws the whole fleet's cohorts."""
    page = client.get("/rollouts/new").text
    csrf = page.partition('name="kedge-csrf" content="')[2].partition('"')[0]
    fields = {"release": "shapes 1.3", "size": ["1 %", "100 %"], "soak": ["10", "10"],
              "approval": ["", ""]}  # fmt: skip
    before = running.cpu_seconds
    answer = client.post("/rollouts/new/preview", data=fields, headers={HEADER_CSRF: csrf})
    if answer.status_code != 200:
        raise SystemExit(f"preview: {answer.status_code} {answer.text[:300]}")
    spent = 1000 * (running.cpu_seconds - before)
    return Row(name="preview of a rollout over the fleet", value=spent, unit="ms")


def asset_row(client: httpx.Client) -> Row:
    """Returns what the page with most of them loads beside itself."""
    import re

    page = client.get("/").text
    loaded = set(re.findall(r'(?:src|href)="(/console/assets/[^"]+)"', page))
    total = sum(len(client.get(each).content) for each in loaded) / 1000
    return Row(name="assets of the fleet page", value=total, unit="kB", target=_TARGET_KB,
               holds=total < _TARGET_KB)  # fmt: skip


def browser_rows(running: Running, seeded: Seeded) -> Iterator[Row]:
    """Yields what a browser sees, and what pages that stand open cost."""
    if missing():
        yield Row(name=f"first paint: not measured, {missing()}", value=None, unit="ms")
        return
    with chromium() as browser:
        page = browser.new_page(base_url=running.url)
        page.goto("/login")
        page.get_by_label("Name").fill(USER)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Fleet").wait_for()
        paints = [_paint(page) for _ in range(5)]
        yield Row(name="first paint of the fleet page", value=median(paints), unit="ms",
                  target=_TARGET_PAINT_MS, holds=median(paints) < _TARGET_PAINT_MS)  # fmt: skip
        page.goto("about:blank")
        idle = _share(running, _OPEN_SECONDS)
        for name, path in (("fleet", "/"), ("rollout", f"/rollouts/{seeded.running}")):
            page.goto(f"{running.url}{path}")
            time.sleep(3)
            share = _share(running, _OPEN_SECONDS) - idle
            yield Row(name=f"{name} page that stands open, of a core", value=share, unit="%",
                      target=_TARGET_SHARE, holds=share < _TARGET_SHARE)  # fmt: skip


def _paint(page: object) -> float:
    page.goto("/")  # type: ignore[attr-defined]
    page.wait_for_timeout(300)  # type: ignore[attr-defined]
    script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    return float(page.evaluate(script))  # type: ignore[attr-defined]


def _share(running: Running, seconds: float) -> float:
    """Returns the share of a core that the server takes, per cent."""
    before, begun = running.cpu_seconds, time.monotonic()
    time.sleep(seconds)
    return 100 * (running.cpu_seconds - before) / (time.monotonic() - begun)


def measure(devices: int, rollouts: int) -> Sequence[Row]:
    """Returns all figures."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kedge-console-") as home:
        seeded = console_fleet.seed(Path(home) / "fleet", devices, rollouts)
        with _server(seeded) as running, closing(session(running)) as client:
            rows += page_rows(running, client, seeded)
            rows += [preview_row(running, client), asset_row(client)]
        # Afresh: on a busy machine the above takes longer than the scheduler keeps still.
        with _server(seeded) as running:
            rows += browser_rows(running, seeded)
    return rows


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--rollouts", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = measure(chosen.devices, chosen.rollouts)
    print(as_object(describe(), rows) if chosen.json else as_table(rows, ""))


if __name__ == "__main__":
    main()
