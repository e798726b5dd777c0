"""``/api/v1/releases``."""

from __future__ import annotations

from fastapi import APIRouter

from kedge_server.auth import MayRead
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.releases import service
from kedge_shared.api import ReleaseInfo

router = APIRouter(prefix="/api/v1/releases", tags=["releases"])


@router.get("", summary="Every release")
def list_releases(services: Services, _: MayRead) -> list[ReleaseInfo]:
    """Returns every release, newest first."""
    with transaction(services.engine) as session:
        return service.all_releases(session, services.repository.targets(session))


@router.get("/{model}/{release}", summary="One release")
def show_release(model: str, release: str, services: Services, _: MayRead) -> ReleaseInfo:
    """Returns one release with its builds."""
    with transaction(services.engine) as session:
        listed = services.repository.targets(session)
        return service.one_release(session, model, release, listed)
