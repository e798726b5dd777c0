"""For how long a window is shut: what silence must outlast."""

from __future__ import annotations

from typing import Any

import pytest

from kedge_server.rollouts.faults import faults
from kedge_shared.rollouts import GateSpec, RolloutSpec, StageSpec
from kedge_shared.windows import WindowSpec, longest_shut

HOUR = 3600.0


@pytest.mark.parametrize(
    ("fields", "hours"),
    [
        ({"begins": "22:00", "ends": "04:00"}, 18),
        ({"begins": "04:00", "ends": "22:00"}, 6),
        ({"begins": "00:00", "ends": "00:00"}, 0),
        ({"begins": "22:00", "ends": "04:00", "days": ("sat",)}, 7 * 24 - 6),
        ({"begins": "22:00", "ends": "04:00", "days": ("sat", "sun")}, 5 * 24 + 24 - 6),
        ({"begins": "22:00", "ends": "04:00", "days": ("mon", "thu")}, 4 * 24 - 6),
        ({"begins": "22:00", "ends": "04:00", "days": ()}, None),
    ],
)
def test_the_longest_time_shut(fields: dict[str, Any], hours: float | None) -> None:
    found = longest_shut(WindowSpec(**fields))
    assert found == (None if hours is None else hours * HOUR)


def test_a_rollout_whose_boards_would_be_taken_for_broken_is_refused() -> None:
    def wrong(silence: float, **window: Any) -> list[str]:
        stage = StageSpec(percent=100, gate=GateSpec(silence_seconds=silence))
        return faults(RolloutSpec(model="m", release="1", stages=(stage,),
                                  window=WindowSpec(**window)))  # fmt: skip

    night = {"begins": "22:00", "ends": "04:00"}
    (fault,) = wrong(1800, **night)
    assert fault == (
        "stages[0].gate.silence_seconds: the window is shut for up to 18 h, so boards may be "
        "silent for 66600"
    )
    assert wrong(66600, **night) == []
    assert wrong(1800, begins="00:00", ends="00:00") == []
    assert wrong(10**6, **night, days=()) == ["window.days: it never opens, name a day"]
