"""Counts distinct objects in a stream: evidence is worth what its tracks are, not its frames."""

from __future__ import annotations

import numpy as np

from kedge_shared.detections import Array, empty, match

_SAME_IOU = 0.3
#: Looks without a sighting after which an object counts as gone.
_PATIENCE = 5


class TrackCounter:
    """Joins boxes of following looks by overlap, class by class.

    Attributes:
        total: Distinct objects so far.
    """

    def __init__(self) -> None:
        self.total = 0
        self._boxes: Array = empty()
        self._missing = np.zeros(0, dtype=np.int64)

    def see(self, boxes: Array) -> None:
        """Takes the objects (n, 6) of one look."""
        pairs = match(self._boxes, boxes, _SAME_IOU)
        self._missing += 1
        for known, seen in pairs:
            self._boxes[known] = boxes[seen]
            self._missing[known] = 0
        fresh = sorted(set(range(len(boxes))) - {seen for _, seen in pairs})
        self.total += len(fresh)
        kept = self._missing <= _PATIENCE
        self._boxes = np.concatenate([self._boxes[kept], boxes[fresh]])
        zeros = np.zeros(len(fresh), dtype=np.int64)
        self._missing = np.concatenate([self._missing[kept], zeros])
