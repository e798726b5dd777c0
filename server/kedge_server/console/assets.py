"""What a browser loads beside a page: read once, named by its hash, kept for good."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from kedge_server.errors import NotFoundError
from kedge_shared.ids import sha256_hex

router = APIRouter(prefix="/console/assets")

_TYPES = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "charts.js": "text/javascript",
    "theme.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "vendor/htmx.min.js": "text/javascript",
    "vendor/uplot.min.js": "text/javascript",
    "vendor/uplot.min.css": "text/css",
}
_DIGITS = 16
_FOR_GOOD = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """A file.

    Attributes:
        body: Its bytes.
        digest: The first digits of their SHA-256.
        media_type: What it is.
    """

    body: bytes
    digest: str
    media_type: str


@cache
def find(name: str) -> Asset:
    """Returns a file.

    Raises:
        NotFoundError: There is none of that name.
    """
    if name not in _TYPES:
        raise NotFoundError(f"there is no {name}")
    body = (files("kedge_server.console") / "assets" / name).read_bytes()
    return Asset(body, sha256_hex(body)[:_DIGITS], _TYPES[name])


def address(name: str) -> str:
    """Returns where a page finds a file; another version is another address."""
    return f"{router.prefix}/{find(name).digest}/{name}"


@router.get("/{digest}/{name:path}")
def send(digest: str, name: str, request: Request) -> Response:
    """Sends a file; a page of an older version is sent what there is now, and must not keep it."""
    found = find(name)
    tag = f'"{found.digest}"'
    headers = {"ETag": tag, "Cache-Control": _FOR_GOOD if digest == found.digest else "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
