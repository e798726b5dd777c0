"""Which gate is simulated: that of a rollout's file, or the test as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedge_shared.errors import InputError
from kedge_shared.rollouts import RolloutSpec, SequentialSpec

if TYPE_CHECKING:
    from kedge_server.rollouts.simulate.power import Power

_AS_IT_COMES = SequentialSpec(latency_ratio=None, on_exhausted="widen")


def power_of(spec: RolloutSpec | None, devices: int, fleets: int, seed: int) -> list[Power]:
    """Returns the power table of a rollout's gate; of the first stage, with all percents.

    Raises:
        InputError: numpy is missing, or the rollout has another kind of gate or of stages.
    """
    try:
        from kedge_server.rollouts.simulate.power import table
    except ModuleNotFoundError:
        raise InputError(
            "simulating needs numpy", "install it with: pip install 'kedge[server]'"
        ) from None
    if spec is None:
        return table(devices, fleets, _AS_IT_COMES, seed=seed)
    percents = [each.percent for each in spec.stages]
    test = spec.stages[0].gate.sequential
    if test is None or None in percents:
        raise InputError(
            "only stages by percent with a sequential gate are simulated",
            "give stages[0].gate.sequential",
        )
    return table(devices, fleets, test, percents=[each or 100 for each in percents], seed=seed)
