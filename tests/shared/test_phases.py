"""The phase machine, pinned by literal rows: comparing the table with itself proves nothing."""

from __future__ import annotations

import itertools

import pytest

from kedge_shared.phases import LIVE, RESUME, TERMINAL, TRANSITIONS, Event, Phase, advance

GOOD_UPDATE = [
    ("idle", "assigned", "downloading"),
    ("downloading", "fetched", "verifying"),
    ("verifying", "verified", "preflight"),
    ("preflight", "passed", "shadow"),
    ("shadow", "passed", "armed"),
    ("armed", "swap", "swapping"),
    ("swapping", "swapped", "probation"),
    ("probation", "healthy", "confirmed"),
    ("confirmed", "assigned", "downloading"),
]
BAD_UPDATES = [
    ("idle", "rejected", "refused"),
    ("downloading", "rejected", "refused"),
    ("downloading", "environment", "refused"),
    ("verifying", "rejected", "refused"),
    ("verifying", "environment", "refused"),
    ("preflight", "harm", "refused"),
    ("preflight", "undecided", "refused"),
    ("preflight", "rejected", "refused"),
    ("preflight", "environment", "refused"),
    ("shadow", "harm", "refused"),
    ("shadow", "undecided", "armed"),
    ("shadow", "rejected", "refused"),
    ("shadow", "environment", "refused"),
    ("armed", "rejected", "refused"),
    ("armed", "environment", "refused"),
    ("swapping", "harm", "rolling_back"),
    ("swapping", "environment", "rolling_back"),
    ("probation", "harm", "rolling_back"),
    ("probation", "undecided", "rolling_back"),
    ("probation", "environment", "rolling_back"),
    ("confirmed", "harm", "rolling_back"),
    ("rolling_back", "restored", "rolled_back"),
    ("rolled_back", "assigned", "downloading"),
    ("refused", "assigned", "downloading"),
]
ROWS = {(Phase(a), Event(e)): Phase(b) for a, e, b in GOOD_UPDATE + BAD_UPDATES}


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, Event)))
def test_every_pair_is_either_a_pinned_row_or_refused(phase: Phase, event: Event) -> None:
    if (phase, event) in ROWS:
        assert advance(phase, event) is ROWS[phase, event]
    else:
        with pytest.raises(ValueError, match="no step from"):
            advance(phase, event)


def test_every_phase_is_reached_from_idle() -> None:
    seen = {Phase.IDLE}
    while True:
        more = {after for (before, _), after in TRANSITIONS.items() if before in seen} - seen
        if not more:
            break
        seen |= more
    assert seen == set(Phase)


def test_every_phase_leads_to_a_terminal_one() -> None:
    good = set(TERMINAL)
    for _ in Phase:
        good |= {before for (before, _), after in TRANSITIONS.items() if after in good}
    assert good == set(Phase)


@pytest.mark.parametrize(
    ("crashed_in", "stands"),
    [
        ("idle", "idle"),
        ("downloading", "downloading"),
        ("verifying", "verifying"),
        ("preflight", "verifying"),
        ("shadow", "verifying"),
        ("armed", "verifying"),
        ("swapping", "rolling_back"),
        ("probation", "probation"),
        ("confirmed", "confirmed"),
        ("rolling_back", "rolling_back"),
        ("rolled_back", "rolled_back"),
        ("refused", "refused"),
    ],
)
def test_resume_after_a_crash(crashed_in: str, stands: str) -> None:
    assert RESUME[Phase(crashed_in)] is Phase(stands)


def test_resume_is_total() -> None:
    assert set(RESUME) == set(Phase)


def test_only_phases_near_the_loop_are_live() -> None:
    assert {each.value for each in LIVE} == {"shadow", "swapping", "probation", "rolling_back"}
    assert {each.value for each in TERMINAL} == {"confirmed", "rolled_back", "refused"}
