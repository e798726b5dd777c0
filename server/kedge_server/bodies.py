"""Bodies of requests: read no further than their limit, before anything is made of them."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from kedge_server.errors import RequestError, TooLargeError

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


async def read_json(request: Request, limit_bytes: int) -> Any:
    """Reads a JSON body.

    Raises:
        TooLargeError: It is longer than ``limit_bytes``.
        RequestError: It is no JSON.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLargeError(f"body is longer than {limit_bytes} bytes")
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
