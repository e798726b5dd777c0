"""How often somebody may try: token buckets in a bounded memory.

An account is held to a rate for *strangers*, so that nobody guesses its password from many
addresses. Who logs in from an address where that account has logged in before has a bucket of its
own, which strangers cannot empty: an attacker slows the account down for strangers and locks nobody
out for ever. API tokens and open sessions are not touched at all.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from dataclasses import dataclass

_MOST_KEYS = 20_000


@dataclass(frozen=True)
class Rate:
    """A bucket's measure.

    Attributes:
        burst: Tries at once.
        every_seconds: One more after so long.
    """

    burst: int
    every_seconds: float


ADDRESS = Rate(20, 30.0)
ACCOUNT = Rate(10, 60.0)


class Throttle:
    """Buckets by key. Thread-safe; the least recently used are forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, ...], tuple[float, float]] = OrderedDict()

    def spend(self, key: tuple[str, ...], rate: Rate, now: float) -> float:
        """Takes one try.

        Returns:
            Seconds to wait; 0 when it was there and is spent.
        """
        with self._lock:
            tries = self._tries(key, rate, now)
            if tries >= 1:
                self._keep(key, tries - 1, now)
                return 0.0
            self._keep(key, tries, now)
            return (1 - tries) * rate.every_seconds

    def wait(self, key: tuple[str, ...], rate: Rate, now: float) -> float:
        """Returns seconds to the next try; 0 when there is one. Spends none."""
        with self._lock:
            return max(0.0, (1 - self._tries(key, rate, now)) * rate.every_seconds)

    def give_back(self, key: tuple[str, ...], rate: Rate, now: float) -> None:
        """Gives one try back: it was none."""
        with self._lock:
            self._keep(key, min(rate.burst, self._tries(key, rate, now) + 1), now)

    def _tries(self, key: tuple[str, ...], rate: Rate, now: float) -> float:
        tries, at = self._kept.get(key, (float(rate.burst), now))
        return min(rate.burst, tries + max(0.0, now - at) / rate.every_seconds)

    def _keep(self, key: tuple[str, ...], tries: float, now: float) -> None:
        self._kept[key] = (tries, now)
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST_KEYS:
            self._kept.popitem(last=False)


def network(address: str) -> str:
    """Returns what counts as one address: of IPv6 the /64 that one customer is given."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
