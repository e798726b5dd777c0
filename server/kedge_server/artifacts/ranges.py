"""Which bytes of an artifact are asked for (RFC 9110, section 14). Pure."""

from __future__ import annotations

import re

_RANGE = re.compile(r"^bytes=(\d{0,18})-(\d{0,18})$")


class UnsatisfiableError(Exception):
    """No byte of the range is there: 416."""


def asked(header: str, if_range: str, etag: str, length: int) -> tuple[int, int] | None:
    """Returns first byte and end (exclusive) of what is asked for, or ``None`` for everything.

    Several ranges at once, which nobody needs here, count as everything, as the RFC allows.

    Args:
        header: ``Range``; empty if there is none.
        if_range: ``If-Range``; empty if there is none.
        etag: Of the artifact.
        length: Of the artifact, bytes.

    Raises:
        UnsatisfiableError: No byte of it is there.
    """
    found = _RANGE.match(header.strip())
    if found is None or found[1] == found[2] == "" or (if_range and if_range.strip() != etag):
        return None
    if not found[1]:
        last = int(found[2])
        if not last or not length:
            raise UnsatisfiableError
        return max(0, length - last), length
    first = int(found[1])
    end = min(length, int(found[2]) + 1) if found[2] else length
    if found[2] and int(found[2]) < first:
        return None
    if first >= length:
        raise UnsatisfiableError
    return first, end
