"""Who is in which stage: never empty, never twice, and the same for the same rollout."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from kedge_server.rollouts import cohorts
from kedge_server.rollouts.cohorts import Size, place

FLEETS = st.dictionaries(
    st.text("abcdefgh0123456789-", min_size=1, max_size=12),
    st.sampled_from(["orin", "rk3588", "x86"]),
    min_size=1,
    max_size=60,
)


def assign_stages(salt: str, fleet: dict[str, str], percents: Sequence[float]) -> dict[str, int]:
    return cohorts.assign_stages(salt, fleet, [Size(percent=each) for each in percents])


PERCENTS = st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(sorted)


@given(FLEETS, PERCENTS, st.text(max_size=5))
def test_each_class_gives_the_ceiling_of_its_share(
    fleet: dict[str, str], percents: list[int], salt: str
) -> None:
    stages = assign_stages(salt, fleet, percents)
    for device_class in set(fleet.values()):
        members = [name for name, each in fleet.items() if each == device_class]
        for stage, percent in enumerate(percents):
            upto = sum(1 for name in members if stages.get(name, 99) <= stage)
            assert upto == math.ceil(len(members) * percent / 100)


@given(FLEETS, PERCENTS)
def test_the_same_rollout_draws_the_same_cohorts(
    fleet: dict[str, str], percents: list[int]
) -> None:
    again = dict(reversed(list(fleet.items())))
    assert assign_stages("ro-1", fleet, percents) == assign_stages("ro-1", again, percents)


def test_twenty_percent_of_five_boards_is_one_board() -> None:
    fleet = {f"cam-{each}": "x86" for each in range(5)}
    for salt in range(200):
        stages = assign_stages(f"ro-{salt}", fleet, [20, 100])
        assert sorted(stages.values()) == [0, 1, 1, 1, 1]


def test_no_board_is_first_in_every_rollout() -> None:
    fleet = {f"cam-{each}": "x86" for each in range(5)}
    first = {
        next(
            name
            for name, stage in assign_stages(f"ro-{salt}", fleet, [20, 100]).items()
            if not stage
        )
        for salt in range(100)
    }
    assert first == set(fleet)


def test_each_class_is_in_the_canary() -> None:
    fleet = {f"orin-{each}": "orin" for each in range(90)} | {"pi-0": "pi"}
    stages = assign_stages("ro", fleet, [5, 100])
    assert stages["pi-0"] == 0


def test_devices_beyond_the_last_stage_are_left_out() -> None:
    fleet = {f"cam-{each}": "x86" for each in range(10)}
    assert len(assign_stages("ro", fleet, [10, 30])) == 3


def test_counts_and_selectors_size_stages_too() -> None:
    fleet = {f"orin-{each}": "orin" for each in range(10)} | {"pi-0": "pi", "pi-1": "pi"}
    sizes = [Size(members={"orin-7", "pi-1"}), Size(count=3), Size(percent=100)]
    stages = cohorts.assign_stages("ro", fleet, sizes)
    assert {name for name, stage in stages.items() if stage == 0} == {"orin-7", "pi-1"}
    by_class = [sum(stages[name] <= 1 for name in fleet if name.startswith(each))
                for each in ("orin", "pi")]  # fmt: skip
    assert by_class == [3, 2], "counts are cumulative and hold what a selector brought"
    assert set(stages) == set(fleet)


def test_the_least_risk_comes_first() -> None:
    fleet = {f"cam-{each}": "x86" for each in range(10)}
    risks = {name: 0 if name in {"cam-3", "cam-8"} else 1 for name in fleet}
    sizes = [Size(percent=20), Size(percent=100)]
    for salt in range(20):
        stages = cohorts.assign_stages(f"ro-{salt}", fleet, sizes, risks)
        assert {name for name, stage in stages.items() if not stage} == {"cam-3", "cam-8"}


@given(FLEETS, PERCENTS, st.integers(1, 30))
def test_stages_that_grow_one_by_one_hold_what_they_would_at_once(
    fleet: dict[str, str], percents: list[int], late: int
) -> None:
    sizes = [Size(percent=each) for each in percents]
    members = [name for name in fleet if fleet[name] == "x86"]
    stages = assign_stages("ro", dict.fromkeys(members, "x86"), percents)
    counts = [sum(1 for each in stages.values() if each == stage) for stage in range(len(sizes))]
    counts.append(len(members) - len(stages))
    for number in range(late):
        stage = place(f"late-{number}", counts, sizes) if sizes else None
        counts[len(sizes) if stage is None else stage] += 1
    total = len(members) + late
    for stage, percent in enumerate(percents):
        assert sum(counts[: stage + 1]) >= math.ceil(round(total * percent / 100, 9))
