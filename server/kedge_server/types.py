"""Column types that are the same on every database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Integer

#: 64 bits. SQLite's INTEGER has them, and only a column of that name counts up by itself.
Long: Any = BigInteger().with_variant(Integer, "sqlite")
