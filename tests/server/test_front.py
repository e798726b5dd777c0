"""Accuracy against frame time, drawn so that the chosen one is seen and no name hides another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import pytest

from kedge_server.console.models import builds, front
from kedge_server.console.models.front import Dot, Front
from kedge_shared.manifest import Measured
from tests.shared import samples


def drawn(dots: Sequence[Dot]) -> Front:
    return front.lay_out(dots, "x", title="t", across_title="ms", up_title="mAP")


def searched(count: int) -> list[Dot]:
    """Candidates of nearly the same size around a chosen one, beside a slow one to begin with."""
    close = [Dot(f"candidate {at}", 40 - at / 1e3, 0.5 - at / 1e4) for at in range(count)]
    close[3] = replace(close[3], ring=True, label="candidate 3, 320 px, int8")
    return [Dot("float", 131.0, 0.51, solid=False, label="baseline"), *close]


def test_it_joins_what_no_other_build_beats() -> None:
    def build(release: str, *figures: float) -> builds.Build:
        measured = tuple(
            Measured(what=what, value=value, machine="x")
            for what, value in zip(("map50_95", "latency_p95_ms"), figures, strict=False)
        )
        made = replace(samples.manifest(), release=release, measured=measured)
        return builds.Build("x", made, "1" * 64, "", True)

    found = front.draw(
        [build("a", 0.4, 20), build("b", 0.39, 25), build("c", 0.45, 30), build("d")], "x"
    )
    assert [(each.dot.name, each.best) for each in found.points] == [
        ("a", True), ("b", False), ("c", True)
    ]  # fmt: skip
    assert [each.label.text for each in found.points if each.label] == ["a", "b", "c"]
    assert found.unmeasured == 1
    a, b, c = found.points
    assert a.x < b.x < c.x
    assert c.y < a.y < b.y
    assert all(Front.left <= each.x <= Front.right for each in found.points)
    assert found.line.count("V") == 1
    one = front.draw([build("a", 0.4, 20)], "x")
    assert one.points[0].best
    assert not front.draw([], "x").points


def test_what_lies_far_off_does_not_squeeze_the_others() -> None:
    found = drawn(searched(14))
    (far,) = found.outside
    assert (far.dot.name, far.x) == ("float", Front.right)
    xs = [each.x for each in found.points if not each.outside]
    assert max(xs) - min(xs) > 300
    (chosen,) = [each for each in found.points if each.dot.ring]
    assert sorted(abs(chosen.x - each) for each in xs)[1] > 10, "it stands apart from the next one"
    # Each line of the grid says another number.
    for ticks in (found.across, found.up):
        assert len({each.said for each in ticks}) == len(ticks)


def test_the_chosen_one_is_drawn_where_it_is_however_far_off() -> None:
    dots = [replace(each, ring=each.name == "float") for each in searched(14)]
    assert [each.dot.name for each in drawn(dots).outside] == []
    spread = [Dot(str(at), 10.0 + at, 0.1 + at / 50) for at in range(14)]
    assert drawn(spread).outside == ()
    few = searched(5)
    assert drawn(few).outside == (), "so few do not squeeze one another"


@pytest.mark.parametrize("count", [3, 14, 40])
def test_no_name_hides_another(count: int) -> None:
    dots = searched(max(count, 4))
    dots += [replace(each, label=each.name, across=each.across + 1e-4) for each in dots[5:7]]
    labels = [each.label for each in drawn(dots).points if each.label]
    assert len(labels) == sum(bool(each.label) for each in dots)
    for one, other in combinations(labels, 2):
        assert not _overlap(one.box, other.box), (one, other)
    for each in labels:
        left, _, right, _ = each.box
        assert left >= Front.left
        assert right <= Front.wide


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return (min(one[2], other[2]) > max(one[0], other[0])
            and min(one[3], other[3]) > max(one[1], other[1]))  # fmt: skip
