"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

_ARGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def missing() -> str:
    """Returns what a browser needs and is not here; empty where there is one."""
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        return "install kedge[dev] for Playwright"
    return "" if shutil.which("chromium") else "apt-get install chromium"


@contextmanager
def chromium() -> Iterator[Any]:
    """Runs a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(_ARGS))
        try:
            yield browser
        finally:
            browser.close()


def violations(page: Any) -> list[str]:
    """Returns what axe-core finds wrong with a page, the serious and the critical."""
    script = (files("axe_playwright_python") / "axe.min.js").read_text()
    # Evaluated by the debugger: the page's own policy lets no such script in.
    page.evaluate(script)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{page.url}: {each['id']}, {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]
