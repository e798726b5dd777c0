"""How many downloads a server bears at once."""

from __future__ import annotations


class Slots:
    """Downloads at once.

    Args:
        count: At most; 0 is without limit.

    Attributes:
        taken: How many are under way.
    """

    def __init__(self, count: int) -> None:
        self._count, self.taken = count, 0

    @property
    def free(self) -> bool:
        """Says whether another one may begin."""
        return not self._count or self.taken < self._count
