"""What is done with a rollout: first its confirmation, which counts boards, then the deed."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from kedge_server.auth import MayApprove, MayRead, MayRun, MayStop
from kedge_server.console import render
from kedge_server.console.figures import figures
from kedge_server.console.rollouts import consequences
from kedge_server.console.rollouts.consequences import Action
from kedge_server.console.route import ConsoleRoute
from kedge_server.context import Context, Services
from kedge_server.database import now, transaction
from kedge_server.errors import NotFoundError
from kedge_server.rollouts import desk, service
from kedge_server.rollouts.stages import RolloutEvent

router = APIRouter(prefix="/rollouts", route_class=ConsoleRoute)
_COUNTED = {
    "halt": consequences.halt, "stop": consequences.stop, "pause": consequences.pause,
    "resume": consequences.resume,
}  # fmt: skip


@router.get("/{rollout}/confirm/{action}")
def confirm(rollout: str, action: str, services: Services, _: MayRead) -> Response:
    """Says what an action would do to how many boards."""
    return render.part(
        "rollouts/confirm.html", rollout=rollout, action=_action(services, rollout, action)
    )


def _action(services: Context, rollout: str, name: str) -> Action:
    with transaction(services.engine) as session:
        row, at = service.find(session, rollout), now(session)
        if name == "retry":
            return consequences.retry(session, row, at)
        found = consequences.count(session, row)
        if name == "approve":
            return consequences.approve(service.info(session, row, at), found)
        if name not in _COUNTED:
            raise NotFoundError(f"there is no action {name}")
        return _COUNTED[name](found)


@router.post("/{rollout}/approve")
def approve(rollout: str, request: Request, services: Services, who: MayApprove) -> Response:
    """Says yes."""
    desk.approve(services, rollout, who)
    return _back(request, rollout)


@router.post("/{rollout}/retry")
def retry(rollout: str, request: Request, services: Services, who: MayRun) -> Response:
    """Tries again where it failed."""
    desk.retry(services, rollout, who)
    return _back(request, rollout)


@router.post("/{rollout}/resume")
def resume(rollout: str, request: Request, services: Services, who: MayRun) -> Response:
    """Lets it go on."""
    desk.change(services, rollout, RolloutEvent.RESUME, who)
    return _back(request, rollout)


@router.post("/{rollout}/pause")
def pause(rollout: str, request: Request, services: Services, who: MayStop) -> Response:
    """Lets no further board have it."""
    desk.change(services, rollout, RolloutEvent.PAUSE, who)
    return _back(request, rollout)


@router.post("/{rollout}/halt")
def halt(rollout: str, request: Request, services: Services, who: MayStop) -> Response:
    """Aborts; boards go back."""
    desk.change(services, rollout, RolloutEvent.HALT, who)
    return _back(request, rollout)


@router.post("/{rollout}/stop")
def stop(rollout: str, request: Request, services: Services, who: MayStop) -> Response:
    """Aborts; boards keep what they have."""
    desk.change(services, rollout, RolloutEvent.STOP, who)
    return _back(request, rollout)


def _back(request: Request, rollout: str) -> Response:
    figures(request).forget()
    return render.go(request, f"/rollouts/{rollout}")
