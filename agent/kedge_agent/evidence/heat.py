"""What the board says of its own heat: facts that others read, so that decisions stay pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heat:
    """Readings of one moment.

    Attributes:
        throttled: Its clocks are held down for heat or want of power; ``None``: this board does
            not say.
    """

    throttled: bool | None = None
