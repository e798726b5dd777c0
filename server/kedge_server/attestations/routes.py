"""``/api/v1/devices/{device}/attestations``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from kedge_server.attestations import service
from kedge_server.auth import MayRead
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.devices.service import find
from kedge_shared.attestation import AttestationInfo

router = APIRouter(tags=["devices"])


@router.get("/api/v1/devices/{device}/attestations", summary="What a device signed that it runs")
def attestations(
    device: str,
    services: Services,
    _: MayRead,
    most: Annotated[int, Query(ge=1, le=200)] = 20,
) -> list[AttestationInfo]:
    """Returns what the device attested, newest first; each can be checked with its key alone."""
    with transaction(services.engine) as session:
        return service.of_device(session, find(session, device).id, most)
