"""What pages of the console say, and what they are worked out from."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from kedge_server.console import kept, words
from kedge_server.console.rollouts import asked
from kedge_server.console.rollouts.band import band
from kedge_server.errors import MalformedError


def test_figures_are_kept_three_hundred_times_as_long_as_they_took() -> None:
    assert kept.kept_seconds(0.09) == pytest.approx(30)
    assert kept.kept_seconds(5) == 60
    held, made = kept.Kept[int](), iter(range(9))

    def slow() -> int:
        sum(math.sqrt(each) for each in range(200_000))
        return next(made)

    with ThreadPoolExecutor(8) as crowd:
        assert set(crowd.map(lambda _: held.get("a", slow).value, range(8))) == {0}
    assert held.get("b", slow).value == 1
    held.forget()
    assert held.get("a", slow).value == 2


def test_a_share_that_is_not_all_is_never_shown_as_all() -> None:
    assert words.share(99_999, 100_000) == "> 99.9 %"
    assert words.share(1, 100_000) == "< 0.1 %"
    assert words.share(100_000, 100_000) == "100 %"
    assert words.share(0, 0) == "–"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.6, "1 min"), (125, "2 min 5 s"), (7500, "2 h 5 min"), (176_400, "2 d 1 h")],
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert words.span(seconds) == said


def test_a_state_is_told_by_its_word_and_escapes_what_it_is_given() -> None:
    assert "rolled back" in words.badge("rolled_back")
    assert "<b>" not in words.badge("<b>")
    assert 'data-at="0.000"' in words.moment(0)


def test_the_band_is_valid_whenever_one_looks() -> None:
    """Of streams of boards, at most one in twenty ever has the truth outside."""
    import random

    dice, truth, outside, runs = random.Random(7), 0.1, 0, 200
    for _ in range(runs):
        failed = 0
        for known in range(1, 80):
            failed += dice.random() < truth
            low, high = band(failed, known)
            if not low <= truth <= high:
                outside += 1
                break
    assert outside / runs <= 0.07
    assert band(0, 0) == (0.0, 1.0)
    low, high = band(0, 100)
    assert low == 0
    assert 0.02 < high < 0.08


def test_a_form_is_the_rollout_that_it_says() -> None:
    fields = {
        "release": ["pcb 1.4"], "selector": ["class==jetson-*"], "gate": ["sequential"],
        "size": ["tag.lab==yes", "40", "12.5 %", ""], "soak": ["0", "60", "", "1"],
        "approval": ["yes", "", "", ""], "slower_percent": ["5"], "blast_radius": ["200"],
        "deadline_hours": ["1.5"], "order": ["tag.a==b\n\ntag.c==d"], "silence": ["20"],
        "window_begins": ["22:00"], "window_ends": ["04:00"], "two_person": ["yes"],
    }  # fmt: skip
    spec = asked.spec_of(fields)
    assert (spec.model, spec.release, spec.two_person) == ("pcb", "1.4", True)
    assert [each.title for each in spec.stages] == ["tag.lab==yes", "40 of each class", "12.5 %"]
    assert [each.approval for each in spec.stages] == [True, False, False]
    assert spec.stages[1].gate.soak_seconds == 3600
    test = spec.stages[0].gate.sequential
    assert test is not None
    assert test.latency_ratio == 1.05
    assert (spec.blast_radius, spec.deadline_hours) == (200, 1.5)
    assert spec.order == ("tag.a==b", "tag.c==d")
    assert spec.window is not None
    assert spec.window.begins == "22:00"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("soak", "soon", "soak"), ("soak", "inf", "soak"), ("blast_radius", "nan", "blast_radius"),
     ("size", "9" * 5000, "selector"), ("release", "", "no release"),
     ("blast_radius", "0", "blast_radius"),
     ("text", "model: a\nrelease: b\nstages: [{percent: 100}]\nnonsense: 1", "nonsense")],
)  # fmt: skip
def test_a_form_that_cannot_be_read_names_its_field(field: str, value: str, said: str) -> None:
    fields = {"release": ["a 1"], "size": ["100 %"], "soak": ["1"], "approval": [""]}
    with pytest.raises(MalformedError, match=said):
        asked.spec_of({**fields, field: [value]})
