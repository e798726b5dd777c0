"""``/api/v1/rollouts``."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter

from kedge_server.auth import Operator
from kedge_server.bodies import BoundedRoute
from kedge_server.context import Services
from kedge_server.database import now, transaction
from kedge_server.repository.withdrawal import require_listed
from kedge_server.rollouts import service
from kedge_server.rollouts.stages import RolloutEvent
from kedge_shared.api import DecisionInfo, DeploymentInfo, PlanInfo, RolloutInfo, RolloutSpec

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"], route_class=BoundedRoute)


@router.post("", status_code=201, summary="Start a rollout or a recall")
def create(spec: RolloutSpec, services: Services, who: Operator) -> RolloutInfo:
    """Draws the cohorts, stores them and assigns the first stage."""
    with transaction(services.engine) as session:
        listed = services.repository.targets(session)
        require_listed(session, listed, spec.model, spec.release)
        made = service.create(session, spec, who, now(session))
    services.follower.follow()
    return made


@router.post("/plan", summary="What would a rollout do?")
def plan(spec: RolloutSpec, services: Services, _: Operator) -> PlanInfo:
    """Says who would get what, when, and why not the others; changes nothing."""
    with transaction(services.engine) as session:
        return service.plan(session, spec)


@router.get("", summary="Every rollout")
def list_rollouts(services: Services, _: Operator) -> list[RolloutInfo]:
    """Returns every rollout, newest first."""
    with transaction(services.engine) as session:
        return service.all_rollouts(session, now(session))


@router.get("/{rollout}", summary="One rollout")
def show(rollout: str, services: Services, _: Operator) -> RolloutInfo:
    """Returns one rollout with its stages and gates."""
    with transaction(services.engine) as session:
        return service.info(session, service.find(session, rollout), now(session))


@router.get("/{rollout}/deployments", summary="A rollout's deployments")
def deployments(rollout: str, services: Services, _: Operator) -> list[DeploymentInfo]:
    """Returns every deployment that was assigned."""
    with transaction(services.engine) as session:
        service.find(session, rollout)
        return service.deployments(session, rollout=rollout)


@router.get("/{rollout}/replay", summary="Judge a rollout's stored evidence again")
def replay(rollout: str, services: Services, _: Operator) -> list[DecisionInfo]:
    """Returns every decision that moved the rollout, beside what its evidence says today."""
    with transaction(services.engine) as session:
        return service.replay(session, rollout)


@router.post("/{rollout}/approve", summary="Say yes for a stage that asks")
def approve(rollout: str, services: Services, who: Operator) -> RolloutInfo:
    """Lets a stage go on that its gate leaves to a person."""
    with transaction(services.engine) as session:
        changed = service.approve(session, rollout, who, now(session))
    services.follower.follow()
    return changed


@router.post("/{rollout}/retry", summary="Try again where it failed")
def retry(rollout: str, services: Services, who: Operator) -> RolloutInfo:
    """Gives boards that failed or could not decide the release again, despite quarantine."""
    with transaction(services.engine) as session:
        changed = service.retry(session, rollout, who, now(session))
    services.follower.follow()
    return changed


@router.post("/{rollout}/{action}", summary="Pause, resume, halt or stop a rollout")
def change(
    rollout: str,
    action: Literal["pause", "resume", "halt", "stop"],
    services: Services,
    who: Operator,
) -> RolloutInfo:
    """Halting sends the rollout's devices back to what they had; stopping leaves them."""
    with transaction(services.engine) as session:
        changed = service.change(session, rollout, RolloutEvent(action), who, now(session))
    services.follower.follow()
    return changed
