"""How tokens are stored: they are random, so a plain hash is enough."""

from __future__ import annotations

import hashlib


def token_hash(token: str) -> str:
    """Returns what is stored and looked up instead of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
