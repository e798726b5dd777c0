"""What two engines say of a frame, and which objects are distinct."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kedge_agent.detector import Detections
from kedge_agent.evidence.book import EvidenceBook
from kedge_agent.evidence.tracks import AGE, GLIMPSE, Track, Tracker
from kedge_shared.manifest import Manifest, Shadow
from kedge_shared.pairing import Pairing, Sightings
from tests.shared import samples

Box = tuple[float, float, float, float, float, float]


def rows(*boxes: Box) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(boxes, dtype=np.float32).reshape(-1, 6)


def said(*boxes: Box, classes: tuple[str, ...] = ("circle", "square"), ms: float = 5) -> Detections:
    return Detections(rows(*boxes), classes, ms, finite=True)


def box(x: float, label: int = 0, conf: float = 0.9, y: float = 0, side: float = 20) -> Box:
    return (x, y, x + side, y + side, conf, label)


def manifest(**terms: object) -> Manifest:
    return replace(samples.manifest(), shadow=Shadow(**terms))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new", "terms", "score"),
    [
        ([box(0)], [box(1)], {}, (1, 0, 0)),
        ([box(0)], [], {}, (0, 1, 0)),
        ([], [box(0)], {}, (0, 0, 1)),
        # One of the two is sure: the other need only report it. Neither is: nothing is said.
        ([box(0, conf=0.9)], [box(0, conf=0.26)], {}, (1, 0, 0)),
        ([box(0, conf=0.3)], [], {}, (0, 0, 0)),
        # Another name is an object lost, and nothing gained.
        ([box(0, 0)], [box(0, 1)], {}, (0, 1, 0)),
        ([box(0, 0)], [box(50, 1)], {}, (0, 1, 1)),
        # Classes that need not hold are not looked at.
        ([box(0, 0), box(50, 1)], [], {"classes": ("square",)}, (0, 1, 0)),
        ([box(0, 0)], [], {"classes": ("triangle",)}, (0, 0, 0)),
    ],
)
def test_one_frame(
    old: list[Box], new: list[Box], terms: dict[str, object], score: tuple[int, int, int]
) -> None:
    wanted = manifest(**terms)
    found = Pairing(wanted.output, wanted.shadow)(said(*old), said(*new)).score
    assert (found.hits, found.missed, found.extra) == score


def test_classes_go_by_name_and_new_ones_are_no_gain() -> None:
    """The older engine knows disc and cross; the newer circle and square."""
    new = manifest(class_map={"disc": "circle"})
    pairing = Pairing(new.output, new.shadow)
    old = said(box(0, 1), box(50, 0), classes=("cross", "disc"))
    found = pairing(old, said(box(0, 0), box(90, 1), box(130, 0))).score
    assert (found.hits, found.missed, found.extra) == (1, 1, 1), (
        "the disc is found again, the cross is lost, one circle is new, squares were never sought"
    )


def look(*boxes: Box, old: bool = True, new: bool = True) -> Sightings:
    return Sightings(rows(*boxes), (old,) * len(boxes), (new,) * len(boxes))


def watched(tracker: Tracker, *looks: Sightings, step: float = 0.4, at: float = 0) -> list[Track]:
    return [
        track
        for number, each in enumerate(looks)
        for track in tracker.see(each, at + number * step)
    ]


NOTHING = look()


def test_a_parked_car_counts_once() -> None:
    tracker = Tracker()
    assert len(watched(tracker, *[look(box(0))] * 500)) == 1
    assert tracker.total == 1


def test_a_parked_car_behind_a_lorry_is_the_same_car() -> None:
    tracker = Tracker()
    watched(tracker, *[look(box(0))] * AGE, *[NOTHING] * 8)
    watched(tracker, *[look(box(0))] * AGE, at=(AGE + 8) * 0.4)
    assert tracker.total == 1
    # Much later another one stands there.
    watched(tracker, *[NOTHING] * 50, *[look(box(0))] * AGE, at=30)
    assert tracker.total == 2


def test_objects_are_judged_when_old_enough_or_gone() -> None:
    assert watched(Tracker(), *[look(box(0))] * (AGE - 1)) == []
    gone = watched(Tracker(), *[look(box(0))] * GLIMPSE, *[NOTHING] * 6)
    assert [each.looks for each in gone] == [GLIMPSE]
    # A ghost of a few frames is no object.
    assert watched(Tracker(), *[look(box(0))] * (GLIMPSE - 1), *[NOTHING] * 6) == []


@pytest.mark.parametrize("speed", [5.0, 18.0, 26.0])
def test_moving_objects_are_one_each(speed: float) -> None:
    """Up to more than its own width between two looks, where boxes do not overlap."""
    tracker = Tracker()
    looks = [look(box(speed * at), box(300 - speed * at, y=100)) for at in range(12)]
    watched(tracker, *looks, *[NOTHING] * 6)
    assert tracker.total == 2


def test_a_conveyor() -> None:
    """One bottle after the other, each in from the left: as many tracks as bottles."""
    tracker = Tracker()
    looks = [look(box(15 * at)) for _ in range(6) for at in range(14)]
    watched(tracker, *looks, *[NOTHING] * 6)
    assert tracker.total == 6


def test_a_queue_is_not_shifted_by_one() -> None:
    """One behind the other, nearer to the next one's last place than to their own."""
    looks = [look(*[box(20 * at - 30 * number) for number in range(6)]) for at in range(12)]
    tracker = Tracker()
    # The first is alone at first, as at the edge of a picture; the others follow one by one.
    shown = [
        look(*[tuple(each) for each in one.boxes if each[0] >= 0])  # type: ignore[misc]
        for one in looks
    ]
    watched(tracker, *shown, *[NOTHING] * 6)
    assert tracker.total == 6


def test_who_comes_where_another_left_is_another() -> None:
    tracker = Tracker()
    there = [look(box(15 * at)) for at in range(6)]
    watched(tracker, *there, *[NOTHING] * 6)
    watched(tracker, *reversed(there), *[NOTHING] * 6, at=12 * 0.4)
    assert tracker.total == 2


def test_what_a_track_says() -> None:
    looks = [look(box(0))] * 10 + [look(box(0), new=False)] * 6 + [look(box(0), old=False)] * 4
    (track,) = watched(Tracker(), *looks)
    assert (track.missed, track.gained) == (6 / 16, 4 / 14)
    (never,) = watched(Tracker(), *[look(box(0), old=False)] * AGE)
    assert math.isnan(never.missed)
    assert never.gained == 1.0


def test_the_book_counts_objects_not_frames() -> None:
    """Ten minutes of one parked car prove nothing; forty cars that pass prove health."""
    book = EvidenceBook(manifest(), began=0)
    for at in range(600):
        book.add(said(box(0)), said(box(0)), float(at))
        book.add(said(), said(), at + 0.5)
    parked = book.evidence(0, 1, 600)
    assert (parked.frames, parked.objects, parked.tracks) == (1200, 600, 1)
    assert parked.proof.safe < 1

    book = EvidenceBook(manifest(), began=0)
    for at in range(40 * 20):
        seen = said(box(15 * (at % 20)))
        book.add(seen, seen, at * 0.4)
    passed = book.evidence(7.0, 4.0, 320)
    assert passed.tracks == 40
    assert passed.proof.safe > math.log(20)
    assert (passed.new_p95_ms, passed.stride, passed.seconds) == (7.0, 4.0, 320)


def test_the_book_times_both_on_the_same_frames() -> None:
    slow, fast = (EvidenceBook(manifest(), began=0) for _ in range(2))
    for at in range(100):
        slow.add(said(ms=10), said(ms=16), float(at))
        fast.add(said(ms=16), said(ms=10), float(at))
    found = slow.evidence(0, 1, 100)
    assert (found.old_ms, found.new_ms) == (10, 16)
    assert found.proof.slow >= math.log(100)
    assert fast.evidence(0, 1, 100).proof.slow == 0


def test_still_frames_count_once_each() -> None:
    """Unrelated images: one cluster a frame, however full; a folder in a loop proves no more."""
    book = EvidenceBook(manifest(), began=0, stills=True)
    for at in range(3 * 40):
        old = said(
            box(700 * (at % 40)),
            box(40 * (at % 40), 1, y=90 + 70 * (at % 40)),
            box(31 * (at % 40), y=500),
        )
        new = said(*[tuple(each) for each in old.rows[: 2 if at % 40 == 0 else 3]])
        book.add(old, new, float(at))
        book.add(said(), said(), at + 0.5)
    found = book.evidence(0, 1, 120)
    assert (found.frames, found.objects, found.tracks) == (240, 120, 40)
    assert found.missed == pytest.approx(1 / 3 / 40)


def test_a_video_is_no_stills() -> None:
    book = EvidenceBook(manifest(), began=0, stills=True)
    for at in range(100):
        book.add(said(box(at), box(at, y=90)), said(box(at)), float(at))
    assert book.evidence(0, 1, 100).tracks == 1


def test_the_book_adds_up_a_loss() -> None:
    book = EvidenceBook(manifest(), began=0)
    for at in range(5 * 20):
        book.add(said(box(15 * (at % 20))), said(), at * 0.4)
    lost = book.evidence(0, 1, 40)
    assert (lost.hits, lost.old_only, lost.new_only, lost.answered) == (0, 100, 0, 0)
    assert (lost.missed, lost.gained) == (1.0, 0.0)
    assert lost.proof.missing >= math.log(100)
