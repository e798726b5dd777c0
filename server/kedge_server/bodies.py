"""Bodies of requests: read no further than their limit, before anything is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.types import Message

from kedge_server.errors import MalformedError, RequestError, TooLargeError
from kedge_shared import wire
from kedge_shared.errors import InputError

#: What operators ask for fits; FastAPI itself would read without end, and before it asks who.
ASKED_LIMIT_BYTES = 64 * 1024

#: OpenAPI of a body that :func:`read_json` reads and that is one signed message (DSSE).
SIGNED_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "title": "Envelope",
                    "description": "DSSE envelope: https://github.com/secure-systems-lab/dsse",
                    "type": "object",
                    "required": ["payload", "payloadType", "signatures"],
                    "properties": {
                        "payload": {"type": "string", "format": "byte"},
                        "payloadType": {"type": "string"},
                        "signatures": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["keyid", "sig"],
                                "properties": {
                                    "keyid": {"type": "string"},
                                    "sig": {"type": "string", "format": "byte"},
                                },
                            },
                        },
                    },
                }
            }
        },
    }
}


class BoundedRoute(APIRoute):
    """A route that holds its body to the limit of length and to the bounds of its fields.

    The fields' bounds are msgspec's, which pydantic does not know: it makes OpenAPI and the object,
    msgspec has looked at every field before.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns the handler with the checks before it."""
        handler, field = super().get_route_handler(), self.body_field
        if field is None:
            return handler
        kind: Any = field.field_info.annotation

        async def bounded(request: Request) -> Response:
            body, wrong = await read_bytes(request, ASKED_LIMIT_BYTES), ""
            try:
                wire.decode(body, kind, "body")
            except InputError as error:
                # Handed on empty: who asks is looked at first, and only then refused for this.
                body, wrong = b"", error.what

            async def again() -> Message:
                return {"type": "http.request", "body": body, "more_body": False}

            try:
                return await handler(Request(request.scope, again))
            except RequestValidationError:
                if not wrong:
                    raise
                raise MalformedError(wrong, "see /docs") from None

        return bounded


async def read_bytes(request: Request, limit_bytes: int) -> bytes:
    """Reads a body.

    Raises:
        TooLargeError: It is longer than ``limit_bytes``.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLargeError(f"body is longer than {limit_bytes} bytes")
    return body


async def read_json(request: Request, limit_bytes: int) -> Any:
    """Reads a JSON body.

    Raises:
        TooLargeError: It is longer than ``limit_bytes``.
        RequestError: It is no JSON.
    """
    body = await read_bytes(request, limit_bytes)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("body is no JSON") from None


async def read_signed(request: Request, limit_bytes: int) -> dict[str, Any]:
    """Reads a body that is one signed message whose payload has ``limit_bytes`` at the most.

    Raises:
        TooLargeError: It is longer.
        RequestError: It is no JSON object.
    """
    # Base64 makes three bytes four; the rest is the envelope's own.
    body = await read_json(request, limit_bytes * 4 // 3 + 4096)
    if not isinstance(body, dict):
        raise RequestError("the body is a signed message")
    return body
