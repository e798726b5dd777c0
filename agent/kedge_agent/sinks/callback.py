"""Results to a function of people's own."""

from __future__ import annotations

from collections.abc import Callable

from kedge_agent.sinks.base import Result


class Callback:
    """Calls a function with each result, in the sink's thread.

    Args:
        function: May be slow or raise: what it has no time for is dropped and counted.
    """

    def __init__(self, function: Callable[[Result], object]) -> None:
        self._function = function

    def put(self, result: Result) -> None:
        """Calls it."""
        self._function(result)

    def close(self) -> None:
        """Nothing is open."""
