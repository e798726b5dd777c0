"""``/models``, ``/models/{model}``, its releases, and two of them side by side."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from kedge_server.auth import MayRead
from kedge_server.console import render
from kedge_server.console.models import builds, compare, front, listing, report, signatures
from kedge_server.console.models.running import boards_on, boards_with, running
from kedge_server.console.route import ConsoleRoute
from kedge_server.console.standing import standing
from kedge_server.context import Context, Services
from kedge_server.database import transaction
from kedge_server.errors import NotFoundError
from kedge_server.releases import figures
from kedge_server.repository.publication import Offline
from kedge_shared.errors import KedgeError
from kedge_shared.policy import POLICY_LIMIT_BYTES, ModelPolicy, policy_path, read_policy

router = APIRouter(prefix="/models", route_class=ConsoleRoute)
Name = Annotated[str, Query(max_length=64)]
#: Of the table of builds; the loss stands with the report.
_COLUMNS = tuple(each for each in figures.FIGURES if each != figures.LOSS)
_SAID = {"figure_title": figures.title, "figure_written": builds.written}


@router.get("")
def show_all(request: Request, services: Services, who: MayRead, after: Name = "") -> Response:
    """Lists models with their newest release."""
    counted = running(request, services, who).value
    with transaction(services.engine) as session:
        listed = standing(request, services, session).listed
        lines, following = listing.models(session, listed, after)
    boards = {each.name: boards_with(counted, each.newest.keys) for each in lines}
    return render.page(
        request, who, "models/list.html", part="models/lines.html", lines=lines, boards=boards,
        following=quote(following), first=not after,
    )  # fmt: skip


@router.get("/{model}")
def show(
    model: str, request: Request, services: Services, who: MayRead,
    device_class: Annotated[str, Query(alias="class", max_length=64)] = "",
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None, than: Name = "",
) -> Response:  # fmt: skip
    """Shows a model: its releases, what can be had at which frame time, its policy."""
    counted = running(request, services, who)
    with transaction(services.engine) as session:
        offline = standing(request, services, session)
        lines, following = listing.releases(
            session, model, offline.listed, None if before is None else (before, than)
        )
        classes = listing.classes(session, model)
        chosen = device_class if device_class in classes else classes[0]
        drawn = front.draw(listing.of_class(session, model, chosen, offline.listed), chosen)
    values: dict[str, Any] = {
        "model": model, "lines": lines, "following": following, "first": before is None,
        "classes": classes, "chosen": chosen, "front": drawn, "at": counted.at,
        "policy": _policy(services, offline, model), "figures": (figures.ACCURACY, figures.LATENCY),
        "boards": {each.release.release: boards_with(counted.value, each.keys) for each in lines},
        "newest": [each.release.release for each in lines[:2]], **_SAID,
    }  # fmt: skip
    return render.page(request, who, "models/model.html", **values)


@router.get("/{model}/compare")
def side_by_side(
    model: str, request: Request, services: Services, who: MayRead, one: Name = "",
    other: Name = "",
) -> Response:  # fmt: skip
    """Shows two releases of a model side by side."""
    with transaction(services.engine) as session:
        names = listing.names(session, model)
        if not names:
            raise NotFoundError(f"there is no model {model}", "`kedge release list`")
        one, other = one or names[min(1, len(names) - 1)], other or names[0]
        listed = standing(request, services, session).listed
        both = [listing.release(session, model, each, listed) for each in (one, other)]
    by_class = [
        {each.device_class: (each, report.read(services.store, each)[0]) for each in line.builds}
        for line in both
    ]
    return render.page(
        request, who, "models/compare.html", model=model, names=names, one=both[0],
        other=both[1], pairs=compare.pairs(*by_class),
    )  # fmt: skip


@router.get("/{model}/releases/{release}")
def show_release(
    model: str, release: str, request: Request, services: Services, who: MayRead
) -> Response:
    """Shows a release: its builds, what was measured, who signed, who runs it."""
    counted = running(request, services, who)
    with transaction(services.engine) as session:
        offline = standing(request, services, session)
        line = listing.release(session, model, release, offline.listed)
        names = listing.names(session, model)
    shown = [_build(services, offline, each) for each in line.builds]
    for each in shown:
        each["boards"] = boards_on(counted.value, *each["build"].key)
    others = [each for each in names if each != release]
    values: dict[str, Any] = {
        "model": model, "line": line, "release": line.release, "shown": shown,
        "figures": _COLUMNS, "boards": boards_with(counted.value, line.keys),
        "at": counted.at, "others": others, "points": report.points,
        "classes_shown": report.CLASSES_SHOWN, **_SAID,
    }  # fmt: skip
    return render.page(request, who, "models/release.html", **values)


@router.get("/{model}/releases/{release}/layers")
def layers(
    model: str, release: str, request: Request, services: Services, who: MayRead,
    device_class: Annotated[str, Query(alias="class", max_length=64)], q: Name = "",
    precision: Name = "", after: Annotated[int, Query(ge=0, le=10**6)] = 0,
) -> Response:  # fmt: skip
    """Lists every layer of a build, with its precision and why."""
    with transaction(services.engine) as session:
        listed = standing(request, services, session).listed
        line = listing.release(session, model, release, listed)
    mine = [each for each in line.builds if each.device_class == device_class]
    found = report.shown(services.store, mine[0]) if mine else report.Shown()
    if found.report is None:
        said = found.fault or "none was published with it"
        raise NotFoundError(f"{model} {release} has no report for {device_class}: {said}")
    rows = report.matching(found.report.layers, q, precision)
    following = after + report.LAYERS_SHOWN
    return render.page(
        request, who, "models/layers.html", part="models/layer_rows.html", model=model,
        release=release, device_class=device_class, q=q, precision=precision, found=found,
        precisions=sorted({each.precision for each in found.report.layers}), rows=rows,
        after=after, most=report.LAYERS_SHOWN,
        following=following if following < len(rows) else None,
    )  # fmt: skip


def _build(services: Context, offline: Offline, build: builds.Build) -> dict[str, Any]:
    path = build.manifest.target_path
    role, target = signatures.target_of(offline, path)
    known = signatures.known_of(offline, build.manifest.model, target)
    return {
        "build": build, "signed": signatures.signed(offline, role) if role else None,
        "origin": signatures.origin(services.store, build, known), "budgets": builds.judged(build),
        "report": report.shown(services.store, build),
    }  # fmt: skip


def _policy(services: Context, offline: Offline, model: str) -> ModelPolicy | None:
    target = offline.listed.get(policy_path(model))
    if target is None:
        return None
    try:
        return read_policy(services.store.read(target.hashes["sha256"], POLICY_LIMIT_BYTES))
    except KedgeError:
        return None  # the page says that there is none that can be read
