"""``/api/v1/telemetry``."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query

from kedge_server.auth import MayWatch
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.telemetry import service
from kedge_server.telemetry.sums import SECONDS, Level
from kedge_shared.telemetry import TelemetryInfo

router = APIRouter(prefix="/api/v1/telemetry", tags=["telemetry"])
#: Hours or days in an answer, unless ``since`` says otherwise.
_USUAL = 48
_MOST = 1000

Unix = Annotated[float | None, Query(ge=0, description="Unix seconds.")]


@router.get("", summary="What boards measured, by device class and release")
def measured(
    services: Services,
    _: MayWatch,
    level: Level = "hour",
    device_class: str = "",
    release: str = "",
    since: Unix = None,
    until: Unix = None,
) -> list[TelemetryInfo]:
    """Returns sums by the hour or by the day, oldest first, at most 1,000 hours or days of them."""
    end = min(until or time.time(), time.time())
    span = SECONDS[level]
    begin = max(end - _USUAL * span if since is None else since, end - _MOST * span)
    with transaction(services.engine) as session:
        return service.measured(session, level, begin, end, device_class, release)
