"""``/api/v1/audit``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from kedge_server.audit.service import newest
from kedge_server.audit.tables import AuditRow
from kedge_server.auth import Operator
from kedge_server.context import Services
from kedge_server.database import transaction

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


@router.get("", summary="What happened")
def list_audit(
    services: Services, _: Operator, most: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[AuditRow]:
    """Returns the newest rows of the audit log, newest first."""
    with transaction(services.engine) as session:
        return newest(session, most)
