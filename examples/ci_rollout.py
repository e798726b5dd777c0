"""The last step of a pipeline: roll a release out, follow it, fail if it does not complete.

    KEDGE_SERVER=https://kedge.example.com KEDGE_TOKEN=… python examples/ci_rollout.py shapes 1.1

The token is one of `kedge token create ci --role operator`. A pipeline needs no more than
``pip install 'kedge[operator]'``. What happens goes to standard output, a line for each event; the
exit status is 0 if the rollout completed, 3 if it was stopped, 6 if the server is down or refuses.
"""

from __future__ import annotations

import argparse
import sys

from kedge_shared import api
from kedge_shared.errors import BudgetError, KedgeError
from kedge_shared.operator_client import OperatorClient
from kedge_shared.rollouts import GateSpec, RolloutSpec, StageSpec

#: What ends a rollout, or needs a person: a pipeline does not wait for people.
ENDS = {"rollout.completed", "rollout.halted", "rollout.stopped", "gate.asking"}


def main(arguments: list[str]) -> int:
    """Runs the step; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("release")
    parser.add_argument("--percents", default="20,100")
    parser.add_argument("--soak-seconds", type=float, default=600)
    asked = parser.parse_args(arguments)
    try:
        with OperatorClient.open() as kedge:
            roll_out(kedge, plan(asked.model, asked.release, asked.percents, asked.soak_seconds))
    except KedgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def plan(model: str, release: str, percents: str, soak_seconds: float) -> RolloutSpec:
    """Returns what is asked for: each stage has to stay healthy for a while."""
    gate = GateSpec(soak_seconds=soak_seconds)
    stages = tuple(StageSpec(percent=float(each), gate=gate) for each in percents.split(","))
    return RolloutSpec(model=model, release=release, stages=stages)


def roll_out(kedge: OperatorClient, spec: RolloutSpec) -> api.RolloutInfo:
    """Starts a rollout and follows it to its end.

    Raises:
        BudgetError: It was stopped, or asks for a person.
        ServiceError: The server is down or refuses.
    """
    # From the newest event on, so that nothing between the start and the first look is missed.
    newest = kedge.recent_events(most=1)
    rollout = kedge.create_rollout(spec)
    print(f"{rollout.id}: {spec.model} {spec.release}", flush=True)
    last = newest[-1].id if newest else 0
    for event in kedge.follow_events(subject=rollout.id, last=last):
        print(f"{event.kind:<20} {event.data.get('reason', '')}", flush=True)
        if event.kind in ENDS:
            break
    found = kedge.rollout(rollout.id)
    if found.state != "completed":
        raise BudgetError(f"rollout {found.id} is {found.state}: {found.reason}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
