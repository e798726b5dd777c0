"""When what was won by betting is enough: one place, for a board and for a simulation of many.

Logarithms are floats on a board and arrays (runs,) in a simulation, hence ``Any``; this module
itself needs no numpy, because the updater has none.
"""

from __future__ import annotations

import math
from typing import Any

#: Bound on the chance that an equally good engine which disagrees more than its manifest states is
#: taken for a worse one; the share of error that was asked for bounds it where the manifest is
#: right.
UNSTATED_SHARE = 0.1


def proven(won: Any, share: float) -> Any:
    """Says whether a null hypothesis is refuted with the chance ``share`` of an error."""
    return won >= math.log(1 / share)


def loses(missing: Any, worse: Any, share: float) -> Any:
    """Says whether it misses more than stated and is the worse of the two."""
    return proven(missing, share) & proven(worse, max(UNSTATED_SHARE, share))


def healthy(safe: Any, sighted: Any, share: float) -> Any:
    """Says whether it keeps what it must."""
    return proven(safe, share) & proven(sighted, share)
