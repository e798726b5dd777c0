"""Distinct objects in a stream of looks: evidence is worth what its tracks are, not its frames.

A tracker for counting, not for following: where it errs it shall take two objects for one, which
makes evidence slower to come, and not one for two, which would make it up. So boxes are joined
generously, glimpses are no objects, and what stands still and comes back is the same parked car.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kedge_shared.detections import Array, empty, match
from kedge_shared.pairing import Sightings

#: Looks after which a track is judged; it is followed on and never counts again.
AGE = 20
#: Fewer looks are a glimpse: a ghost of either engine, or a fragment of a fast object.
GLIMPSE = 3
_SAME_IOU = 0.3
#: Reach of an object between two looks, in its own diagonal.
_REACH = 1.0
#: How much larger or smaller it may have become, by area.
_GROWTH = 3.0
#: Looks without a sighting after which an object is gone.
_PATIENCE = 5
#: Movement over its life, in its own diagonal, below which an object stood still.
_STILL = 0.25
#: So long the place of a still object is remembered: something drove past it.
_PLACE_SECONDS = 10.0
#: Still frames that are remembered.
_STILLS = 4096
_REST: Array = np.zeros(2, dtype=np.float32)


@dataclass(frozen=True)
class Track:
    """What a distinct object says.

    Attributes:
        missed: Of the older engine's looks at it, the share that the newer missed, 0..1; NaN if
            the older never saw it.
        gained: The other way round.
        looks: On which either saw it.
    """

    missed: float
    gained: float
    looks: int


@dataclass
class _Object:
    box: Array
    since: Array
    at: float
    old: int = 0
    new: int = 0
    both: int = 0
    looks: int = 0
    absent: int = 0
    judged: bool = False
    speed: Array = field(default_factory=lambda: _REST)

    def expected(self, at: float, flow: Array) -> Array:
        """Returns where it should be by now; what was seen but once goes with the others."""
        box: Array = self.box.copy()
        speed = self.speed if self.looks > 1 else flow
        box[:4] += np.tile(speed * (at - self.at), 2)
        return box

    def see(self, box: Array, at: float, old: bool, new: bool) -> None:
        """Takes a look at it."""
        if at > self.at and self.looks:
            self.speed = (_centre(box) - _centre(self.box)) / (at - self.at)
        self.box, self.at, self.absent = box, at, 0
        self.looks += 1
        self.old += old
        self.new += new
        self.both += old and new

    @property
    def still(self) -> bool:
        """It stands where it was first seen."""
        moved = float(np.linalg.norm(_centre(self.box) - _centre(self.since)))
        return moved < _STILL * _diagonal(self.box)

    def track(self) -> Track:
        """What it says."""
        missed = (self.old - self.both) / self.old if self.old else float("nan")
        gained = (self.new - self.both) / self.new if self.new else float("nan")
        return Track(missed, gained, self.looks)


class Tracker:
    """Joins the sightings of following looks into tracks, class by class.

    Attributes:
        total: Tracks that were judged.
    """

    def __init__(self) -> None:
        self.total = 0
        self._objects: list[_Object] = []
        self._left: list[_Object] = []

    def see(self, seen: Sightings, at: float) -> list[Track]:
        """Takes one look.

        Args:
            seen: Objects of this frame.
            at: Seconds, on any clock that does not go back.

        Returns:
            Tracks that are judged by now: old enough, or gone after more than a glimpse.
        """
        pairs = self._join(seen.boxes, at)
        taken = {number for _, number in pairs}
        for each in self._objects:
            each.absent += 1
        for known, number in pairs:
            known.see(seen.boxes[number], at, seen.old[number], seen.new[number])
        for number in range(len(seen)):
            if number not in taken:
                self._enter(seen, number, at)
        gone = [each for each in self._objects if each.absent > _PATIENCE]
        self._objects = [each for each in self._objects if each.absent <= _PATIENCE]
        self._left = [each for each in self._left if at - each.at < _PLACE_SECONDS]
        self._left += [each for each in gone if each.still and each.looks >= GLIMPSE]
        aged = [each for each in self._objects if each.looks >= AGE]
        return self._judge([*gone, *aged])

    def _judge(self, objects: list[_Object]) -> list[Track]:
        due = [each for each in objects if not each.judged and each.looks >= GLIMPSE]
        for each in due:
            each.judged = True
        self.total += len(due)
        return [each.track() for each in due]

    def _enter(self, seen: Sightings, number: int, at: float) -> None:
        box = seen.boxes[number]
        again = match(_boxes(self._left), box[None], _SAME_IOU)
        entered = self._left.pop(again[0][0]) if again else _Object(box, box, at)
        entered.see(box, at, seen.old[number], seen.new[number])
        self._objects.append(entered)

    def _join(self, boxes: Array, at: float) -> list[tuple[_Object, int]]:
        speeds = [each.speed for each in self._objects if each.looks > 1]
        flow = np.median(speeds, axis=0) if speeds else _REST
        expected = np.concatenate(
            [empty(), *(each.expected(at, flow)[None] for each in self._objects)]
        )
        pairs = match(expected, boxes, _SAME_IOU)
        known = _others(len(expected), [left for left, _ in pairs])
        fresh = _others(len(boxes), [right for _, right in pairs])
        near = _nearest(expected[known], boxes[fresh])
        pairs += [(known[left], fresh[right]) for left, right in near]
        return [(self._objects[left], right) for left, right in pairs]


class Stills:
    """Counts frames where no two show the same objects: a triggered camera, a folder of images.

    What is on one frame is one cluster, however many objects it holds. A frame that comes again
    (a folder in a loop) is told by its boxes and proves nothing new; nor does one on which half
    of the objects stand where they stood before, for that is a video after all.

    Attributes:
        total: Frames that were judged.
    """

    def __init__(self) -> None:
        self.total = 0
        self._known: dict[bytes, None] = {}
        self._before: Array = empty()

    def see(self, seen: Sightings, at: float) -> list[Track]:
        """Takes one frame; returns it as a track if it holds objects and is new."""
        if not len(seen):
            return []
        mark = seen.boxes[:, :4].round().astype(np.int32).tobytes()
        stayed = 2 * len(match(self._before, seen.boxes, _SAME_IOU)) >= len(seen)
        self._before = seen.boxes
        if stayed or mark in self._known:
            return []
        self._known[mark] = None
        if len(self._known) > _STILLS:
            del self._known[next(iter(self._known))]
        self.total += 1
        score = seen.score
        old, new = score.hits + score.missed, score.hits + score.extra
        missed = score.missed / old if old else float("nan")
        return [Track(missed, score.extra / new if new else float("nan"), 1)]


def _nearest(left: Array, right: Array) -> list[tuple[int, int]]:
    """Pairs boxes of equal class and like size within reach, nearest first, each once."""
    if not len(left) or not len(right):
        return []
    apart = np.linalg.norm(_centres(left)[:, None] - _centres(right)[None], axis=2)
    size_left, size_right = _diagonals(left), _diagonals(right)
    ratio = (size_left[:, None] / size_right[None]) ** 2
    like = (ratio <= _GROWTH) & (ratio >= 1 / _GROWTH)
    same = left[:, 5][:, None] == right[:, 5][None]
    reach = _REACH * np.maximum(size_left[:, None], size_right[None])
    rows, columns = np.nonzero(like & same & (apart <= reach))
    pairs: list[tuple[int, int]] = []
    for at in np.argsort(apart[rows, columns], kind="stable"):
        row, column = int(rows[at]), int(columns[at])
        if all(row != a and column != b for a, b in pairs):
            pairs.append((row, column))
    return pairs


def _others(count: int, taken: list[int]) -> list[int]:
    return sorted(set(range(count)) - set(taken))


def _boxes(objects: list[_Object]) -> Array:
    return np.concatenate([empty(), *(each.box[None] for each in objects)])


def _centres(boxes: Array) -> Array:
    return np.asarray((boxes[:, :2] + boxes[:, 2:4]) / 2, dtype=np.float32)


def _diagonals(boxes: Array) -> Array:
    size = np.maximum(boxes[:, 2:4] - boxes[:, :2], 1e-3)
    return np.asarray(np.linalg.norm(size, axis=1), dtype=np.float32)


def _centre(box: Array) -> Array:
    centre: Array = _centres(box[None])[0]
    return centre


def _diagonal(box: Array) -> float:
    return float(_diagonals(box[None])[0])
