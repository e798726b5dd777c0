"""When a build must stand still so that the live loop does not. Pure.

A build shares the GPU with the loop, where priorities of the processor count for nothing: the only
brake is to stop it. It is stopped while the loop is slower than is allowed, and goes on when that
has passed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

#: The loop is well again only somewhat below the limit: no trembling around it.
_WELL_SHARE = 0.9


@dataclass(frozen=True)
class Pace:
    """How the loop and a build are.

    Attributes:
        usual_ms: Frame time of the loop before the build, milliseconds; 0 is no loop.
        limit: How many times as long frames may take.
        stands: The build is stopped.
    """

    usual_ms: float
    limit: float
    stands: bool = False

    def after(self, frame_ms: float) -> Pace:
        """Returns the pace after a look at the loop.

        Args:
            frame_ms: Frame time now; 0 where there is none.
        """
        if self.usual_ms <= 0 or frame_ms <= 0:
            return replace(self, stands=False)
        ratio = frame_ms / self.usual_ms
        if self.stands:
            return replace(self, stands=ratio > 1 + (self.limit - 1) * _WELL_SHARE)
        return replace(self, stands=ratio > self.limit)
