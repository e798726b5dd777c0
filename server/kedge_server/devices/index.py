"""What polls are answered from: no ORM, no signature, no database on the hot path.

An ORM session costs 2 ms, this some microseconds. What a device shall run is forgotten when
anything that it follows from changes, and found again (database, signature) at its next poll. Of
an answer only the counter is kept, which its ETag is made of: the bodies of a fleet of 100,000
would be 130 MB, and each is asked for once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable

from kedge_server.devices.pace import phase

#: Counter of a device of which nothing is known.
UNKNOWN = -1


class Place:
    """What is known of a device.

    Attributes:
        device: Its name.
        token_hash: Of its lasting token; boards that renew theirs have none.
        fingerprint: Of its key.
        counter: Of its assignment; 0 without one, ``UNKNOWN`` if it must be looked up.
        until: Unix seconds; then it is signed anew.
        interval: Between two polls, seconds.
        phase: Its place in every interval, 0..1.
    """

    __slots__ = ("counter", "device", "fingerprint", "interval", "phase", "token_hash", "until")

    def __init__(self, device: str, token_hash: str | None, fingerprint: str) -> None:
        self.device, self.token_hash, self.fingerprint = device, token_hash, fingerprint
        self.phase = phase(device)
        self.counter, self.until, self.interval = UNKNOWN, 0.0, 0.0

    def known(self, now: float) -> bool:
        """Says whether it can be answered from here."""
        return self.counter != UNKNOWN and now < self.until


class PollIndex:
    """Token → device, device → key, and what each shall run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_token: dict[str, Place] = {}
        self._by_device: dict[str, Place] = {}
        self._seen: dict[str, float] = {}
        self._generation = 0

    def __len__(self) -> int:
        return len(self._by_device)

    def add_device(self, device: str, token_hash: str | None, fingerprint: str) -> None:
        """Makes a device's key and lasting token known; older ones are forgotten."""
        place = Place(device, token_hash, fingerprint)
        with self._lock:
            self._drop(device)
            self._by_device[device] = place
            if token_hash is not None:
                self._by_token[token_hash] = place

    def remove_device(self, device: str) -> None:
        """Forgets a device: it is refused from now on."""
        with self._lock:
            self._drop(device)
            self._generation += 1

    def keep_only(self, devices: Collection[str]) -> None:
        """Forgets all other devices."""
        for each in [name for name in self._by_device if name not in devices]:
            self.remove_device(each)

    def _drop(self, device: str) -> None:
        old = self._by_device.pop(device, None)
        if old is not None and old.token_hash is not None:
            self._by_token.pop(old.token_hash, None)

    def key_of(self, device: str) -> str | None:
        """Returns the fingerprint of a device's key, or ``None`` of one that is not let in."""
        found = self._by_device.get(device)
        return found.fingerprint if found is not None else None

    def device_of(self, token_hash: str) -> str | None:
        """Returns whose token it is."""
        found = self._by_token.get(token_hash)
        return found.device if found is not None else None

    def place(self, device: str) -> Place | None:
        """Returns what is known of a device."""
        return self._by_device.get(device)

    @property
    def generation(self) -> int:
        """Changes with every :meth:`forget`: what was read before it may be old."""
        return self._generation

    def put(
        self, device: str, counter: int, until: float, interval: float, generation: int
    ) -> None:
        """Keeps what a device shall run, unless something changed while it was found out."""
        with self._lock:
            found = self._by_device.get(device)
            if found is not None and generation == self._generation:
                found.counter, found.until, found.interval = counter, until, interval

    def forget(self, devices: Iterable[str]) -> None:
        """Lets devices be looked up again whose assignment may have changed."""
        with self._lock:
            self._generation += 1
            for each in devices:
                found = self._by_device.get(each)
                if found is not None:
                    found.counter = UNKNOWN

    def forget_all(self) -> None:
        """Lets every device be looked up again."""
        with self._lock:
            self._generation += 1
            for each in self._by_device.values():
                each.counter = UNKNOWN

    def saw(self, device: str) -> None:
        """Notes that a device asked; written to the database in batches."""
        self._seen[device] = time.time()

    def take_seen(self) -> dict[str, float]:
        """Returns who was seen since the last call."""
        with self._lock:
            seen, self._seen = self._seen, {}
        return seen

    def put_back_seen(self, seen: dict[str, float]) -> None:
        """Takes back what could not be written."""
        with self._lock:
            self._seen = {**seen, **self._seen}
