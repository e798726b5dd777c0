"""Frames from anything that Python can iterate over."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from kedge_agent.errors import SourceError
from kedge_agent.sources.base import Images
from kedge_shared.vision import Frame


class Iterated:
    """Frames of an iterable.

    Args:
        make: Returns the iterable; called again after an error, and at the end if it loops.
        fps: Frames a second at which it is read; ``None``: as they come.
        loop: Begin again at the end.
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Frame | None]],
        fps: float | None = None,
        *,
        loop: bool = False,
    ) -> None:
        self._make, self._loop = make, loop
        self.fps = fps

    def images(self) -> Images:
        """Yields copies: people like to draw into the array that they gave.

        Raises:
            SourceError: It is empty.
        """
        while True:
            empty = True
            for each in self._make():
                empty = False
                yield np.array(each) if isinstance(each, np.ndarray) else None
            if empty:
                raise SourceError("the iterable is empty")
            if not self._loop:
                return
