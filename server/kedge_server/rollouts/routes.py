"""``/api/v1/rollouts``."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from kedge_server.accounts import reach
from kedge_server.auth import MayApprove, MayRead, MayRun, MayStop
from kedge_server.bodies import BoundedRoute
from kedge_server.context import Services
from kedge_server.database import now, transaction
from kedge_server.rollouts import desk, service
from kedge_server.rollouts.stages import RolloutEvent
from kedge_shared.api import DecisionInfo, DeploymentInfo, PlanInfo, RolloutInfo, RolloutSpec

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"], route_class=BoundedRoute)


@router.post("", status_code=201, summary="Start a rollout or a recall")
def create(spec: RolloutSpec, services: Services, who: MayRun) -> RolloutInfo:
    """Draws the cohorts, stores them and assigns the first stage.

    Whoever is confined to a part of the fleet draws from that part, which joins the selector.
    """
    return desk.create(services, spec, who)


@router.post("/plan", summary="What would a rollout do?")
def plan(spec: RolloutSpec, services: Services, who: MayRun) -> PlanInfo:
    """Says who would get what, when, and why not the others; changes nothing."""
    return desk.plan(services, spec, who)


@router.get("", summary="Every rollout")
def list_rollouts(services: Services, who: MayRead) -> list[RolloutInfo]:
    """Returns every rollout within one's scope, newest first."""
    with transaction(services.engine) as session:
        return service.all_rollouts(session, now(session), reach.covers(session, who.reach))


@router.get("/{rollout}", summary="One rollout")
def show(rollout: str, services: Services, _: MayRead) -> RolloutInfo:
    """Returns one rollout with its stages and gates."""
    with transaction(services.engine) as session:
        return service.info(session, service.find(session, rollout), now(session))


@router.get("/{rollout}/deployments", summary="A rollout's deployments")
def deployments(rollout: str, services: Services, _: MayRead) -> list[DeploymentInfo]:
    """Returns every deployment that was assigned."""
    with transaction(services.engine) as session:
        service.find(session, rollout)
        return service.deployments(session, rollout=rollout)


@router.get("/{rollout}/replay", summary="Judge a rollout's stored evidence again")
def replay(rollout: str, services: Services, _: MayRead) -> list[DecisionInfo]:
    """Returns every decision that moved the rollout, beside what its evidence says today."""
    with transaction(services.engine) as session:
        return service.replay(session, rollout)


@router.post("/{rollout}/approve", summary="Say yes for a stage that asks")
def approve(rollout: str, services: Services, who: MayApprove) -> RolloutInfo:
    """Lets a stage go on that its gate leaves to a person."""
    return desk.approve(services, rollout, who)


@router.post("/{rollout}/retry", summary="Try again where it failed")
def retry(rollout: str, services: Services, who: MayRun) -> RolloutInfo:
    """Gives boards that failed or could not decide the release again, despite quarantine."""
    return desk.retry(services, rollout, who)


@router.post("/{rollout}/resume", summary="Let a paused rollout go on")
def resume(rollout: str, services: Services, who: MayRun) -> RolloutInfo:
    """Lets it go on from where it was paused."""
    return desk.change(services, rollout, RolloutEvent.RESUME, who)


@router.post("/{rollout}/{action}", summary="Pause, halt or stop a rollout")
def change(
    rollout: str, action: Literal["pause", "halt", "stop"], services: Services, who: MayStop
) -> RolloutInfo:
    """Halting sends the rollout's devices back to what they had; stopping leaves them."""
    return desk.change(services, rollout, RolloutEvent(action), who)
