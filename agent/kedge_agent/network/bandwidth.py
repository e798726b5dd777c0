"""A limit on bandwidth: a token bucket as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Fills at a rate, holds so much, and may be overdrawn: what came, came.

    Attributes:
        rate: Bytes per second.
        burst: Bytes it holds.
        level: Bytes in it; negative is debt.
        at: When that was, monotonic seconds.
    """

    rate: float
    burst: float
    level: float
    at: float

    def take(self, count: int, now: float) -> tuple[Bucket, float]:
        """Takes bytes that came.

        Returns:
            The bucket after that, and how long to wait before any more are asked for, seconds.
        """
        filled = min(self.burst, self.level + max(0.0, now - self.at) * self.rate)
        level = filled - count
        return replace(self, level=level, at=now), max(0.0, -level / self.rate)


def full_bucket(rate: float, now: float) -> Bucket:
    """Returns a bucket that lets a second's worth through at once.

    Args:
        rate: Bytes per second.
        now: Monotonic seconds.
    """
    return Bucket(rate=rate, burst=rate, level=rate, at=now)
