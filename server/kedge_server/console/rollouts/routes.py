"""``/rollouts`` and ``/rollouts/{rollout}``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlmodel import Session

from kedge_server.accounts.principal import Principal, Reach
from kedge_server.accounts.roles import Permission
from kedge_server.auth import MayRead
from kedge_server.console import render
from kedge_server.console.figures import figures
from kedge_server.console.rollouts import listing
from kedge_server.console.rollouts.board import Stored, cards
from kedge_server.console.rollouts.listing import Placed
from kedge_server.console.route import ConsoleRoute
from kedge_server.context import Context, Services
from kedge_server.database import now, transaction
from kedge_server.fleet import counting
from kedge_server.rollouts import knowledge, service
from kedge_server.rollouts.decision import Finding
from kedge_server.rollouts.placing import Place
from kedge_server.rollouts.stages import TRANSITIONS, RolloutEvent
from kedge_server.rollouts.tables import RolloutRow
from kedge_shared import wire
from kedge_shared.api import RolloutInfo

router = APIRouter(prefix="/rollouts", route_class=ConsoleRoute)

State = Literal["", "proposed", "running", "paused", "completed", "halted", "stopped"]
STATES = ("proposed", "running", "paused", "completed", "halted", "stopped")


@router.get("")
def show_all(
    request: Request, services: Services, who: MayRead, state: State = "",
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:  # fmt: skip
    """Lists rollouts, newest first."""
    with transaction(services.engine) as session:
        lines, following = listing.page(session, who.reach, state, before)
    counts = figures(request).standing.get(who.scopes, partial(_standing, services, who.reach))
    return render.page(
        request, who, "rollouts/list.html", part="rollouts/lines.html", lines=lines, state=state,
        states=_tabs(counts.value), following=following, first=before is None,
    )  # fmt: skip


def _standing(services: Context, within: Reach) -> Mapping[str, int]:
    with transaction(services.engine) as session:
        return counting.rollouts(session, within)


def _tabs(counts: Mapping[str, int]) -> list[tuple[str, str, int]]:
    """Returns the states to choose from: in an address, in words, and how many stand so."""
    return [("", "all", sum(counts.values())), *((each, each, counts.get(each, 0))
                                                 for each in STATES)]  # fmt: skip


@router.get("/{rollout}")
def show(
    rollout: str, request: Request, services: Services, who: MayRead, which: Place = "trouble",
    after: Annotated[str, Query(max_length=64)] = "",
) -> Response:  # fmt: skip
    """Shows a rollout: its stages, what their gates say, what can be done."""
    with transaction(services.engine) as session:
        row = service.find(session, rollout)
        info = _info(request, services, row)
        at = now(session)
        placed, following = _placed(request, services, row, which, after)
        values: dict[str, Any] = {
            "rollout": info, "row": row, "spec": knowledge.spec_of(row), "at": at,
            "cards": cards(info, knowledge.spec_of(row), _stored(session, row)),
            "decisions": listing.decisions(session, row.id), "placed": placed,
            "following": following, "which": which, "after": after, "actions": possible(info, who),
        }  # fmt: skip
    return render.page(request, who, "rollouts/page.html", part="rollouts/live.html", **values)


@router.get("/{rollout}/left-out")
def left_out(rollout: str, services: Services, _: MayRead) -> Response:
    """Says who was left out, and why."""
    with transaction(services.engine) as session:
        found = listing.left_out(service.find(session, rollout))
    return render.part("rollouts/reasons.html", reasons=found)


def _info(request: Request, services: Context, row: RolloutRow) -> RolloutInfo:
    """Returns what is known of a rollout; of one that is over for long, as it was counted then."""

    def work() -> RolloutInfo:
        with transaction(services.engine) as session:
            return service.info(session, row, now(session))

    return figures(request).rollouts.get((row.id, row.state, row.reason), work).value


def _placed(
    request: Request, services: Context, row: RolloutRow, which: Place, after: str
) -> tuple[list[Placed], str]:
    """Returns boards of a rollout; whether one is in trouble takes a look at every one."""

    def work() -> tuple[list[Placed], str]:
        with transaction(services.engine) as session:
            return listing.deployments(session, row, which, after, now(session))

    key = (row.id, row.state, row.reason, which, after)
    return figures(request).placed.get(key, work).value


def _stored(session: Session, row: RolloutRow) -> dict[int, Stored]:
    return {
        each.index: Stored(
            each.started, each.finished, each.approved_by,
            wire.decode(each.findings.encode(), tuple[Finding, ...], "stored findings"),
        )
        for each in knowledge.stages_of(session, row.id)
    }  # fmt: skip


_ASKS = {
    "pause": Permission.STOP, "halt": Permission.STOP, "stop": Permission.STOP,
    "resume": Permission.RUN,
}  # fmt: skip


def possible(info: RolloutInfo, who: Principal) -> list[str]:
    """Returns what somebody can do with a rollout as it stands."""
    found = [
        name for name, permission in _ASKS.items()
        if permission in who.permissions and (info.state, RolloutEvent(name)) in TRANSITIONS
    ]  # fmt: skip
    asks = info.state == "proposed" or (
        info.state == "running" and any(each.state == "asking" for each in info.stages)
    )
    if asks and Permission.APPROVE in who.permissions:
        found.insert(0, "approve")
    failed = any(each.failed or each.undecided for each in info.stages)
    open_ = info.state in {"running", "paused"}
    if failed and open_ and Permission.RUN in who.permissions:
        found.append("retry")
    return found
