"""``/api/v1/rollouts``."""

from __future__ import annotations

import time
from typing import Literal

from fastapi import APIRouter

from kedge_server.auth import Operator
from kedge_server.bodies import BoundedRoute
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.repository.withdrawal import require_listed
from kedge_server.rollouts import service
from kedge_server.rollouts.stages import RolloutEvent
from kedge_shared.api import DeploymentInfo, RolloutInfo, RolloutSpec

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"], route_class=BoundedRoute)


@router.post("", status_code=201, summary="Start a rollout or a recall")
def create(spec: RolloutSpec, services: Services, who: Operator) -> RolloutInfo:
    """Draws the cohorts, stores them and assigns the first stage."""
    with transaction(services.engine) as session:
        listed = services.repository.targets(session)
        require_listed(session, listed, spec.model, spec.release)
        made = service.create(session, spec, who, time.time())
    services.index.forget_all()
    return made


@router.get("", summary="Every rollout")
def list_rollouts(services: Services, _: Operator) -> list[RolloutInfo]:
    """Returns every rollout, newest first."""
    with transaction(services.engine) as session:
        return service.all_rollouts(session, time.time())


@router.get("/{rollout}", summary="One rollout")
def show(rollout: str, services: Services, _: Operator) -> RolloutInfo:
    """Returns one rollout with its stages and gates."""
    with transaction(services.engine) as session:
        return service.info(session, service.find(session, rollout), time.time())


@router.get("/{rollout}/deployments", summary="A rollout's deployments")
def deployments(rollout: str, services: Services, _: Operator) -> list[DeploymentInfo]:
    """Returns every deployment that was assigned."""
    with transaction(services.engine) as session:
        service.find(session, rollout)
        return service.deployments(session, rollout=rollout)


@router.post("/{rollout}/{action}", summary="Pause, resume or halt a rollout")
def change(
    rollout: str, action: Literal["pause", "resume", "halt"], services: Services, who: Operator
) -> RolloutInfo:
    """Halting sends the rollout's devices back to what they had."""
    with transaction(services.engine) as session:
        changed = service.change(session, rollout, RolloutEvent(action), who, time.time())
    services.index.forget_all()
    return changed
