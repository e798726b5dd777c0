"""Where the page of what an entry is about is. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

_BUILD = re.compile(r"models/([^/]+)/([^/]+)/[^/]+/manifest\.json")
_DEVICE = ("device ", "enrol", "suspected clone", "key change", "attestation ")
#: What has no page though it begins like others.
_NO_PAGE = frozenset({"enrolment-tokens", "device reject", "webhook remove"})
_USER = ("user ", "login", "logout", "first token", "token ")


#: How an action begins → the page of its subject; the first that fits.
_PAGES = (
    ("rollout ", "/rollouts/{}"),
    *((each, "/devices/{}") for each in _DEVICE),
    ("sign", "/trust#{}"),
    *((each, "/settings/users/{}") for each in _USER),
    ("webhook ", "/settings/webhooks/{}"),
)


def address(action: str, subject: str) -> str:
    """Returns the page of an entry's subject; empty where there is none."""
    build = _BUILD.fullmatch(subject)
    if build:
        return f"/models/{quote(build[1])}/releases/{quote(build[2])}"
    if not subject or action in _NO_PAGE:
        return ""
    if action.startswith("token "):
        subject = subject.partition("/")[0]
    found = next((page for begin, page in _PAGES if action.startswith(begin)), "")
    return found.format(quote(subject, safe=""))
