"""When a device asks again. Pure.

Each device has a place of its own in the interval, by a hash of its name, and is sent back to it
with every answer: a fleet that returns all at once after an outage is spread again within one
interval, and stays so.
"""

from __future__ import annotations

import hashlib

#: A pause is never shorter than this share of the interval, nor longer than that and one interval.
_LEAST = 0.5


def phase(device: str) -> float:
    """Returns a device's place in every interval, 0..1."""
    return int.from_bytes(hashlib.blake2b(device.encode(), digest_size=4).digest(), "big") / 2**32


def next_poll(now: float, interval: float, place: float) -> float:
    """Returns the pause until a device's next place, seconds.

    Args:
        now: Unix seconds.
        interval: Between two polls, seconds.
        place: The device's :func:`phase`.
    """
    wait = (place * interval - now) % interval
    return wait if wait >= _LEAST * interval else wait + interval


def busy_seconds(waiting: int, rate: float, draw: float) -> int:
    """Returns what a device is told to wait that a server cannot serve now (Retry-After).

    Args:
        waiting: How many wait before it.
        rate: How many are served a second.
        draw: Uniform in 0..1: who is sent away together must not return together.
    """
    return 1 + int((1 + draw) * waiting / max(rate, 1.0))
