"""``/devices`` and ``/devices/{device}``."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from sqlmodel import Session

from kedge_server.accounts.principal import Principal
from kedge_server.attestations import service as attestations
from kedge_server.auth import MayManage, MayRead
from kedge_server.console import render
from kedge_server.console.devices import filters, finding, history, language
from kedge_server.console.devices.finding import State, Wanted
from kedge_server.console.devices.tables import SavedFilterRow
from kedge_server.console.figures import figures
from kedge_server.console.route import ConsoleRoute
from kedge_server.context import Context, Services
from kedge_server.database import now, transaction
from kedge_server.devices import desk, service
from kedge_server.devices.facts import tags_of
from kedge_server.devices.selectors import SelectorError, parse
from kedge_server.errors import ConflictError, MalformedError
from kedge_server.fleet.summary import silent_after
from kedge_shared.fleet import TAG_KEY_PATTERN, TAG_VALUE_MOST, TagsChange
from kedge_shared.rollouts import SELECTOR_MOST

router = APIRouter(route_class=ConsoleRoute)

Text = Annotated[str, Query(max_length=SELECTOR_MOST)]
Given = Annotated[str, Form(max_length=SELECTOR_MOST)]
_ATTESTATIONS = 10
#: In the regular expressions of pydantic "$" is the very end.
_TAG_KEY = TAG_KEY_PATTERN.replace(r"\Z", "$")
STATES: dict[str, str] = {
    "": "all that are let in", "silent": "silent", "work": "at work on an update",
    "behind": "behind their assignment", "suspected": "seem to be two",
    "revoked": "revoked", "measuring": "only measure",
}  # fmt: skip


@router.get("/devices")
def show_all(
    request: Request, services: Services, who: MayRead, q: Text = "", state: State = "",
    after: Annotated[str, Query(max_length=64)] = "",
) -> Response:  # fmt: skip
    """Lists boards that match."""
    fault = language.fault_of(q)
    with transaction(services.engine) as session:
        found = finding.Found()
        if not fault:
            found = finding.page(session, _wanted(session, services, who, q, state), after)
        kept = filters.of_user(session, who.user)
    return render.page(
        request, who, "devices/list.html", part="devices/rows.html", found=found, q=q, state=state,
        states=STATES, kept=kept, fault=fault, after=after, tags_of=tags_of,
        asked=urlencode({"q": q, "state": state}), known=language.known_fields(),
    )  # fmt: skip


def _wanted(session: Session, services: Context, who: Principal, q: str, state: State) -> Wanted:
    try:
        selector = parse(q) if q.strip() else None
    except SelectorError as error:
        raise MalformedError(error.what, "docs/rollouts.md has the language") from None
    since = now(session) - silent_after(services.settings.poll_seconds)
    return Wanted(selector, state, who.reach, since)


@router.get("/console/devices/count")
def count(
    request: Request, services: Services, who: MayRead, q: Text = "", state: State = ""
) -> Response:
    """Says how many boards match."""

    def work() -> int:
        with transaction(services.engine) as session:
            return finding.count(session, _wanted(session, services, who, q, state))

    found = figures(request).counts.get((who.scopes, q, state), work)
    return render.part("devices/count.html", count=found.value, at=found.at)


@router.get("/console/language")
def helped(services: Services, who: MayRead, q: Text = "", selector: Text = "") -> Response:
    """Says what is wrong with a selector that is being typed, and what may come next."""
    with transaction(services.engine) as session:
        given = language.help_of(session, q or selector, who.reach)
    field = "selector" if selector else "q"
    return render.part("devices/help.html", help=given, field=field)


@router.post("/console/filters")
def keep_filter(
    request: Request, services: Services, who: MayRead,
    name: Annotated[str, Form(min_length=1, max_length=64)], q: Given = "",
    state: Annotated[State, Form()] = "", deed: Annotated[Literal["keep", "drop"], Form()] = "keep",
) -> Response:  # fmt: skip
    """Keeps a filter, or forgets one."""
    with transaction(services.engine) as session:
        if deed == "drop":
            filters.drop(session, who.user, name)
        else:
            _wanted(session, services, who, q, state)
            row = SavedFilterRow(user=who.user, name=name, selector=q, state=state)
            filters.keep(session, row)
    return render.go(request, f"/devices?{urlencode({'q': q, 'state': state})}")


@router.get("/console/tags/confirm")
def confirm_tags(
    services: Services, who: MayManage, key: Annotated[str, Query(pattern=_TAG_KEY)],
    value: Annotated[str, Query(max_length=TAG_VALUE_MOST)] = "", q: Text = "", state: State = "",
) -> Response:  # fmt: skip
    """Says how many boards a tag of all that match would be set of: counted now."""
    with transaction(services.engine) as session:
        count = finding.count(session, _wanted(session, services, who, q, state))
    return render.part(
        "devices/tag_all.html", q=q, state=state, key=key, value=value, count=count,
        state_title=STATES[state],
    )  # fmt: skip


@router.post("/console/tags")
async def tag(
    request: Request, services: Services, who: MayManage,
    key: Annotated[str, Form(pattern=_TAG_KEY)],
    value: Annotated[str, Form(max_length=TAG_VALUE_MOST)] = "", q: Given = "",
    state: Annotated[State, Form()] = "", which: Annotated[Literal["some", "all"], Form()] = "some",
    expected: Annotated[int | None, Form(ge=0)] = None,
) -> Response:  # fmt: skip
    """Sets a tag of the boards that were marked, or of all that match; empty drops it.

    Of all that match only if they are as many as somebody said yes to.
    """
    from fastapi.concurrency import run_in_threadpool

    marked = [str(each) for each in (await request.form(max_files=0)).getlist("device")]

    def work() -> None:
        names = marked
        if which == "all":
            with transaction(services.engine) as session:
                names = finding.names(session, _wanted(session, services, who, q, state))
            if len(names) != expected:
                raise ConflictError(
                    f"{len(names)} boards match now", "look again, and say yes anew"
                )
        given, gone = ({key: value}, ()) if value else ({}, (key,))
        desk.tag(services, TagsChange(devices=tuple(names), set=given, drop=gone), who)

    await run_in_threadpool(work)
    figures(request).forget()
    return render.go(request, f"/devices?{urlencode({'q': q, 'state': state})}")


@router.get("/devices/{device}")
def show(device: str, request: Request, services: Services, who: MayRead) -> Response:
    """Shows all that is known of a board."""
    with transaction(services.engine) as session:
        row = service.find(session, device)
        live = history.live(session, device)
        values: dict[str, Any] = {
            "device": service.info(row), "enrolled": row.enrolled, "live": live,
            "updates": history.updates(session, device), "figures": history.figures,
            "trace": history.drawn(history.windows(session, device)),
            "confidence": history.confidence(live.window) if live else [],
            "attested": attestations.of_device(session, device, _ATTESTATIONS),
            "silent": (row.last_seen or row.enrolled)
            < now(session) - silent_after(services.settings.poll_seconds),
        }  # fmt: skip
    return render.page(request, who, "devices/page.html", part="devices/live.html", **values)


@router.get("/devices/{device}/confirm/{action}")
def confirm(device: str, action: Literal["revoke", "clear"], _: MayRead) -> Response:
    """Says what revoking a board, or clearing a suspicion, means."""
    return render.part("devices/confirm.html", device=device, action=action)


@router.post("/devices/{device}/revoke")
def revoke(device: str, request: Request, services: Services, who: MayManage) -> Response:
    """Refuses a board from now on."""
    desk.revoke(services, device, who)
    figures(request).forget()
    return render.go(request, f"/devices/{device}")


@router.post("/devices/{device}/clear")
def clear(device: str, request: Request, services: Services, who: MayManage) -> Response:
    """Says that there is one board with this key."""
    desk.clear(services, device, who)
    figures(request).forget()
    return render.go(request, f"/devices/{device}")
