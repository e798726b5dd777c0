"""How often a source is opened again, and when it is declared failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RestartBudget:
    """Restarts of one source.

    Attributes:
        restarts: So many within the window; with more the source is declared failed.
        window_seconds: Length of the window.
        first_seconds: Wait before the first restart; doubled while no frame comes.
        longest_seconds: Longest wait within the budget.
        rest_seconds: Between looks at a failed source: whoever plugs it in again need not
            restart the board.
    """

    restarts: int = 10
    window_seconds: float = 300.0
    first_seconds: float = 0.2
    longest_seconds: float = 10.0
    rest_seconds: float = 60.0


@dataclass(frozen=True)
class Restart:
    """What follows a failure.

    Attributes:
        wait_seconds: Until the source is opened again.
        failed: The budget is spent: it is declared failed.
    """

    wait_seconds: float
    failed: bool


def after_failure(
    budget: RestartBudget, failures: Sequence[float], now: float, in_a_row: int
) -> Restart:
    """Says when a source is opened again.

    Args:
        budget: Its budget.
        failures: When it failed, seconds, this failure included.
        now: The same clock.
        in_a_row: Failures since its last frame, this one included.
    """
    recent = sum(now - each < budget.window_seconds for each in failures)
    if recent > budget.restarts:
        return Restart(budget.rest_seconds, failed=True)
    # The exponent is bounded: 2 ** 5000 is no float.
    doubled = budget.first_seconds * 2 ** min(max(0, in_a_row - 1), 30)
    return Restart(min(doubled, budget.longest_seconds), failed=False)
