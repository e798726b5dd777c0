"""``/api/v1/audit``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from kedge_server.audit import service
from kedge_server.auth import MayAudit
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_shared.audit import AuditEntry

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])
Most = Annotated[int, Query(ge=1, le=1000)]


@router.get("", summary="What happened lately")
def newest(services: Services, _: MayAudit, most: Most = 100) -> list[AuditEntry]:
    """Returns the newest entries of the audit log, newest first."""
    with transaction(services.engine) as session:
        return service.newest(session, most)


@router.get("/after/{entry}", summary="The audit log, page by page")
def after(entry: int, services: Services, _: MayAudit, most: Most = 1000) -> list[AuditEntry]:
    """Returns the entries after one, oldest first; after 0 is from the beginning."""
    with transaction(services.engine) as session:
        return service.after(session, entry, most)
