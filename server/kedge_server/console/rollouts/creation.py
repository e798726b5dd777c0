"""A new rollout: the form, the preview of who gets it when and why others do not, the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlmodel import Session, col, select

from kedge_server.auth import MayRun
from kedge_server.console import render
from kedge_server.console.figures import figures
from kedge_server.console.rollouts import asked, listing
from kedge_server.console.route import ConsoleRoute
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.devices.selectors import FIELDS
from kedge_server.releases.tables import ReleaseRow
from kedge_server.rollouts import desk
from kedge_shared.api import PlanInfo

router = APIRouter(prefix="/rollouts", route_class=ConsoleRoute)
_RELEASES_SHOWN = 200
_NAMES_SHOWN = 8


@router.get("/new")
def form(
    request: Request, services: Services, who: MayRun, release: str = "", recall: bool = False
) -> Response:
    """Shows the form."""
    with transaction(services.engine) as session:
        releases = _releases(session)
    return render.page(
        request, who, "rollouts/new.html", part="rollouts/new.html", releases=releases,
        rows=asked.USUAL, fields=FIELDS, release=release, recall=recall,
    )  # fmt: skip


@router.post("/new/stages")
async def stages(request: Request, _: MayRun) -> Response:
    """Returns the stages of the form with one more."""
    rows = asked.rows_of(await _fields(request))
    return render.part("rollouts/stages.html", rows=(*rows, asked.Row("")))


@router.post("/new/preview")
async def preview(request: Request, services: Services, who: MayRun) -> Response:
    """Says who would get it when, and why the others do not; changes nothing."""
    spec = asked.spec_of(await _fields(request))
    found = await _in_thread(desk.plan, services, spec, who)
    return render.part("rollouts/preview.html", spec=spec, **previewed(found))


def previewed(found: PlanInfo) -> dict[str, Any]:
    """Returns a plan as the preview shows it. Pure."""
    return {
        "stages": found.stages, "names": _NAMES_SHOWN,
        "devices": sum(len(each.devices) for each in found.stages),
        "left_out": len(found.skipped), "reasons": listing.by_reason(found.skipped),
    }  # fmt: skip


@router.post("")
async def create(request: Request, services: Services, who: MayRun) -> Response:
    """Starts it."""
    spec = asked.spec_of(await _fields(request))
    made = await _in_thread(desk.create, services, spec, who)
    figures(request).forget()
    return render.go(request, f"/rollouts/{made.id}")


async def _in_thread(work: Any, *values: Any) -> Any:
    from fastapi.concurrency import run_in_threadpool

    return await run_in_threadpool(work, *values)


async def _fields(request: Request) -> Mapping[str, Sequence[str]]:
    """Returns the fields of a form; those of one name in their order."""
    sent = await request.form(max_files=0, max_fields=200)
    return {name: [str(each) for each in sent.getlist(name)] for name in sent}


def _releases(session: Session) -> list[str]:
    query = select(ReleaseRow).order_by(col(ReleaseRow.published).desc()).limit(_RELEASES_SHOWN)
    return [f"{each.model} {each.release}" for each in session.exec(query)]
