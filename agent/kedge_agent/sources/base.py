"""The source port."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol, TypeAlias

from kedge_shared.vision import Frame

#: What a source yields.
Images: TypeAlias = Generator[Frame | None, None, None]


class Source(Protocol):
    """Something that gives images; opened anew after an error."""

    @property
    def fps(self) -> float | None:
        """Frames a second at which it is read; ``None``: it sets the pace itself."""
        ...

    def images(self) -> Images:
        """Yields images, ``None`` for one that was unreadable; closed when read no more."""
        ...


#: Opens a source. Called in a thread of its own: it may block.
Opener: TypeAlias = Callable[[], Source]
