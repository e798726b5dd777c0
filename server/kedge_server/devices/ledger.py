"""Which reports of one start of a board were taken. Pure.

A board counts its reports up, so what was taken is nearly always one range, whatever their number:
"0-288". Two reports that came out of order, or one that a board lost, make it two.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A board that counts in leaps harms nobody but itself: its oldest gaps count as taken.
MOST_RANGES = 64


@dataclass(frozen=True)
class Ledger:
    """Taken numbers, as ranges.

    Attributes:
        ranges: (first, last), growing, never touching.
    """

    ranges: tuple[tuple[int, int], ...] = ()

    def has(self, seq: int) -> bool:
        """Says whether a report was taken."""
        return any(first <= seq <= last for first, last in self.ranges)

    def with_(self, seq: int) -> Ledger:
        """Returns the ledger after a report."""
        if self.has(seq):
            return self
        found: list[tuple[int, int]] = []
        for first, last in sorted([*self.ranges, (seq, seq)]):
            if found and first == found[-1][1] + 1:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
        while len(found) > MOST_RANGES:
            found[:2] = [(found[0][0], found[1][1])]
        return Ledger(tuple(found))


def read(text: str) -> Ledger:
    """Reads :func:`write`'s text."""
    pairs = (each.partition("-") for each in text.split(",") if each)
    return Ledger(tuple((int(first), int(last or first)) for first, _, last in pairs))


def write(ledger: Ledger) -> str:
    """Returns a ledger as text: ``"0-288,290"``."""
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in ledger.ranges
    )
