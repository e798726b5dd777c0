"""Counts what a server sends of each file, by the file's hash."""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import Any

_HASH = re.compile(r"[0-9a-f]{64}")


class Traffic:
    """Bytes of bodies by the hash in the address: artifacts and TUF targets have one.

    Attributes:
        sent: Hash → bytes, ever.
    """

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self._lock = threading.Lock()

    def around(self, app: Any) -> Any:
        """Returns an ASGI application that counts what ``app`` sends."""

        async def counting(scope: Any, receive: Any, send: Any) -> None:
            found = _HASH.search(scope.get("path", "")) if scope.get("method") == "GET" else None

            async def counted(message: Any) -> None:
                if found and message["type"] == "http.response.body":
                    with self._lock:
                        self.sent[found.group()] += len(message.get("body", b""))
                await send(message)

            await app(scope, receive, counted)

        return counting
