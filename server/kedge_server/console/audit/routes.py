"""``/audit``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response

from kedge_server.auth import MayAudit
from kedge_server.console import render
from kedge_server.console.audit import integrity, searching, subjects
from kedge_server.console.figures import figures
from kedge_server.console.route import ConsoleRoute
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_shared.audit import Verified

router = APIRouter(prefix="/audit", route_class=ConsoleRoute)
Text = Annotated[str, Query(max_length=256)]
#: Unix seconds as a form has them: empty is none.
Moment = Annotated[str, Query(pattern=r"^(\d{1,11}(\.\d+)?)?$")]


@router.get("")
def show(
    request: Request, services: Services, who: MayAudit, actor: Text = "", action: Text = "",
    subject: Text = "", since: Moment = "", until: Moment = "",
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:  # fmt: skip
    """Lists entries, newest first."""
    wanted = searching.Wanted(
        actor.strip(), action.strip(), subject.strip(),
        float(since) if since else None, float(until) if until else None,
    )  # fmt: skip
    with transaction(services.engine) as session:
        found = searching.page(session, wanted, before)
    fields = {"actor": actor, "action": action, "subject": subject, "since": since, "until": until}
    return render.page(
        request, who, "audit/page.html", part="audit/lines.html", found=found, wanted=wanted,
        asked=urlencode({name: text for name, text in fields.items() if text}),
        first=before is None, address=subjects.address,
        actions=sorted({each.action for each in found.entries}),
    )  # fmt: skip


@router.post("/check")
def check(
    request: Request, services: Services, _: MayAudit,
    head: Annotated[str, Form(max_length=100)] = "",
) -> Response:  # fmt: skip
    """Follows the chain from its first entry; not again while the last time was not long ago."""
    wanted = integrity.read_head(head)

    def work() -> Verified:
        with transaction(services.engine) as session:
            return integrity.check(session)

    found = figures(request).chain.get("", work)
    verified = found.value
    if wanted is not None:
        with transaction(services.engine) as session:
            verified = replace(verified, head=integrity.stands(session, wanted))
    return render.part("audit/checked.html", verified=verified, at=found.at)
