"""Going back by hand: what the state becomes, decided without I/O."""

from __future__ import annotations

import msgspec

from kedge_agent.decisions import harm
from kedge_agent.state import Deployment, State
from kedge_shared.errors import InputError
from kedge_shared.manifest import Manifest
from kedge_shared.phases import TRANSITIONS, Event, Phase, advance
from kedge_shared.policy import ModelPolicy
from kedge_shared.protocol import ManifestRef, Verdict


def ended(state: State, reason: str) -> State | None:
    """Ends an update that has not come near the loop; the engine that serves stays.

    Args:
        state: Of the board.
        reason: A person's.

    Returns:
        The state that follows, or ``None`` where no such update is at hand.
    """
    deployment = state.deployment
    if deployment is None or (deployment.phase, Event.REJECTED) not in TRANSITIONS:
        return None
    verdict = Verdict(
        code="operator", reason=f"ended at the board: {reason}", cause="harm",
        stopped_in=deployment.phase,
    )  # fmt: skip
    return _with(state, deployment, advance(deployment.phase, Event.REJECTED), verdict)


def gone_back(state: State, reason: str, fresh: str, serving: ManifestRef) -> State:
    """Returns the state that has to be driven on.

    The engine on trial, or the one that was confirmed, gives way to the one before it. Whoever does
    that by hand has seen harm: the engine is not taken again by itself, and the report reopens the
    gate that it had passed.

    Args:
        state: Of the board.
        reason: A person's.
        fresh: Identifier for a deployment of this board's own, where none of the server's brought
            the engine that serves.
        serving: Its manifest.

    Raises:
        InputError: There is no engine to go back to.
    """
    deployment = state.deployment
    if deployment is not None and deployment.phase is Phase.ROLLING_BACK:
        raise InputError("this board is going back already")
    swapping = deployment is not None and deployment.phase is Phase.SWAPPING
    if state.active is None or (state.previous is None and not swapping):
        raise InputError("this board has no engine to go back to")
    brought = deployment is not None and deployment.slot == state.active
    if deployment is None or not (
        swapping or (brought and (deployment.phase, Event.HARM) in TRANSITIONS)
    ):
        deployment = Deployment(
            id=fresh, rollout="", intent="revert", manifest=serving, counter=state.counter,
            phase=Phase.CONFIRMED, slot=state.active, release=state.active.release,
        )  # fmt: skip
    ruling = harm("operator", f"taken back at the board: {reason}", deployment.phase)
    bad = deployment.slot or state.active
    following = _with(state, deployment, advance(deployment.phase, Event.HARM), ruling.verdict)
    quarantine = {**state.quarantine, bad.engine: ruling.verdict.reason}
    return msgspec.structs.replace(following, quarantine=quarantine)


def check_floor(previous: Manifest, policy: ModelPolicy) -> None:
    """Checks that the previous engine is still allowed.

    Raises:
        InputError: The owners do not want it served any more.
    """
    if previous.release_counter < policy.min_release_counter:
        raise InputError(
            f"release {previous.release} is older than the model policy allows",
            "install a newer one",
        )


def _with(state: State, deployment: Deployment, phase: Phase, verdict: Verdict) -> State:
    changed = msgspec.structs.replace(deployment, phase=phase, verdict=verdict)
    return msgspec.structs.replace(state, deployment=changed)
