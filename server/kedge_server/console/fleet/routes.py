"""``/``."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlmodel import Session, col, select

from kedge_server.accounts import reach
from kedge_server.accounts.principal import Principal
from kedge_server.accounts.roles import Permission
from kedge_server.auth import MayRead
from kedge_server.console import render
from kedge_server.console.figures import figures
from kedge_server.console.fleet.overview import Overview, look
from kedge_server.console.kept import Figure, Kept
from kedge_server.console.route import ConsoleRoute
from kedge_server.context import Context, Services
from kedge_server.database import now, transaction
from kedge_server.devices import pending
from kedge_server.rollouts import knowledge
from kedge_server.rollouts.membership import OPEN_ROLLOUTS
from kedge_server.rollouts.tables import RolloutRow
from kedge_server.telemetry import service as telemetry
from kedge_shared.telemetry import TelemetryInfo

router = APIRouter(route_class=ConsoleRoute)
_OPEN_SHOWN = 20
_HOUR = 3600
_CHART_HOURS = 24
_LINES = 8


@router.get("/")
def show(request: Request, services: Services, who: MayRead) -> Response:
    """Shows the fleet at a glance."""
    found = _overview(figures(request).fleet, services, who)
    with transaction(services.engine) as session:
        values: dict[str, Any] = {
            "fleet": found.value, "at": found.at, "active": _active(session, who),
            "waiting": _waiting(session, who), "chart": _chart(session, who, found.at),
        }  # fmt: skip
    return render.page(request, who, "fleet/page.html", part="fleet/summary.html", **values)


def _overview(kept: Kept[Overview], services: Context, who: Principal) -> Figure[Overview]:
    def work() -> Overview:
        with transaction(services.engine) as session:
            return look(session, who.reach, services.settings.poll_seconds, now(session))

    return kept.get(who.scopes, work)


def _active(session: Session, who: Principal) -> list[dict[str, Any]]:
    """Returns open rollouts with the stage that they are at."""
    query = (
        select(RolloutRow)
        .where(col(RolloutRow.state).in_(OPEN_ROLLOUTS), reach.covers(session, who.reach))
        .order_by(col(RolloutRow.order).desc())
        .limit(_OPEN_SHOWN)
    )
    found = []
    for row in session.exec(query):
        stages, spec = knowledge.stages_of(session, row.id), knowledge.spec_of(row)
        open_ones = [each for each in stages if each.state in {"running", "asking"}]
        stage = open_ones[0] if open_ones else None
        title = spec.stages[stage.index].title if stage else ""
        found.append({"rollout": row, "stage": stage, "title": title, "stages": len(stages)})
    return found


def _waiting(session: Session, who: Principal) -> int | None:
    """Returns how many boards wait for approval; ``None`` where that is not theirs to see."""
    return pending.count(session) if Permission.ENROL in who.permissions else None


def _chart(session: Session, who: Principal, at: float) -> str:
    """Returns the p95 of frame time by class and hour, for the busiest classes; empty: none."""
    if Permission.WATCH not in who.permissions:
        return ""
    rows = telemetry.measured(session, "hour", at - _CHART_HOURS * _HOUR, at)
    return json.dumps(chart_of(rows)) if rows else ""


def chart_of(rows: list[TelemetryInfo]) -> dict[str, Any]:
    """Returns lines of p95 over time, one a device class and release. Pure."""
    hours = sorted({each.start for each in rows})
    weights: dict[tuple[str, str], int] = {}
    for each in rows:
        key = (each.device_class, each.release)
        weights[key] = weights.get(key, 0) + each.frames
    lines = sorted(weights, key=lambda key: -weights[key])[:_LINES]
    held = {(each.device_class, each.release, each.start): each.p95_ms for each in rows}
    return {
        "unit": "ms", "at": hours,
        "lines": [{"label": f"{name} {release or '(unpublished)'}",
                   "values": [held.get((name, release, hour)) for hour in hours]}
                  for name, release in lines],
    }  # fmt: skip
