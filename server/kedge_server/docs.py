"""``/docs``: the API's reference, from this machine alone.

FastAPI's own page loads Swagger UI from a content delivery network: a server without internet
shows an empty page, one with it runs a stranger's script beside the operator's token. Here the
script comes from the fastapi-offline package, and the page's policy allows no other.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI, Response

from kedge_server.errors import NotFoundError

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Kedge API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="api"><p>A script draws this page from <a href="/openapi.json">openapi.json</a>.</p></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({url: "/openapi.json", dom_id: "#api", deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset]});
"""
_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


def add_docs(app: FastAPI) -> None:
    """Adds the page to an application that was made with ``docs_url=None``."""

    @app.get("/docs", include_in_schema=False)
    def page() -> Response:
        return _answer(_PAGE, "text/html")

    @app.get("/docs/start.js", include_in_schema=False)
    def start() -> Response:
        return _answer(_START, "text/javascript")

    @app.get("/docs/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise NotFoundError(f"there is no {name}")
        try:
            body = (files("fastapi_offline") / "static" / name).read_bytes()
        except (ModuleNotFoundError, OSError):
            raise NotFoundError(
                f"{name} is not installed", "pip install fastapi-offline, or read /openapi.json"
            ) from None
        return _answer(body, _ASSETS[name])


def _answer(body: str | bytes, media_type: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(body, media_type=media_type, headers=headers)
