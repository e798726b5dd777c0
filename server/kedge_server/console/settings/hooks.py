"""``/settings/webhooks``: where events are sent, and what became of them."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request, Response
from sqlmodel import Session

from kedge_server.auth import MayHook
from kedge_server.console import render
from kedge_server.console.route import ConsoleRoute
from kedge_server.console.settings import forms
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.errors import NotFoundError
from kedge_server.events.kinds import KNOWN
from kedge_server.webhooks import service
from kedge_shared.events import WebhookInfo, WebhookRequest

router = APIRouter(prefix="/settings/webhooks", route_class=ConsoleRoute)
_DELIVERIES = 50


@router.get("")
def show_all(request: Request, services: Services, who: MayHook) -> Response:
    """Lists webhooks; there are 50 at the most."""
    with transaction(services.engine) as session:
        hooks = service.every(session)
    return render.page(
        request, who, "settings/hooks.html", hooks=hooks, kinds_known=KNOWN, host=host, tab="hooks"
    )


@router.post("")
def add(
    services: Services, who: MayHook, url: Annotated[str, Form(max_length=2000)],
    kinds: Annotated[str, Form(max_length=2000)] = "",
) -> Response:  # fmt: skip
    """Makes a webhook; its secret is shown in this answer and nowhere else."""
    asked = forms.request_of(WebhookRequest, url=url, kinds=forms.kinds_of(kinds))
    with transaction(services.engine) as session:
        made = service.add(session, asked, str(who))
    return render.part(
        "settings/made.html", what=f"Webhook {made.id}", secret=made.secret,
        back=f"/settings/webhooks/{made.id}",
        note="Give it to the receiver: messages are signed with it, as Standard Webhooks says.",
    )  # fmt: skip


@router.get("/{webhook}")
def show(webhook: str, request: Request, services: Services, who: MayHook) -> Response:
    """Shows a webhook and what was sent to it."""
    with transaction(services.engine) as session:
        hook = _find(session, webhook)
        deliveries = service.deliveries(session, webhook, _DELIVERIES)
    return render.page(
        request, who, "settings/hook.html", part="settings/deliveries.html", hook=hook,
        deliveries=deliveries, host=host, tab="hooks", most=_DELIVERIES,
    )  # fmt: skip


@router.post("/{webhook}/test")
def test(webhook: str, request: Request, services: Services, who: MayHook) -> Response:
    """Sends an event that tells of nothing."""
    with transaction(services.engine) as session:
        service.test(session, webhook, str(who))
    return render.go(request, f"/settings/webhooks/{webhook}")


@router.post("/{webhook}/enable")
def enable(webhook: str, request: Request, services: Services, who: MayHook) -> Response:
    """Takes a disabled webhook up again."""
    with transaction(services.engine) as session:
        service.enable(session, webhook, str(who))
    return render.go(request, f"/settings/webhooks/{webhook}")


@router.get("/{webhook}/confirm")
def confirm(webhook: str, services: Services, _: MayHook) -> Response:
    """Says what removing a webhook means."""
    with transaction(services.engine) as session:
        hook = _find(session, webhook)
    return render.part("settings/remove.html", hook=hook, host=host)


@router.post("/{webhook}/remove")
def remove(webhook: str, request: Request, services: Services, who: MayHook) -> Response:
    """Removes it with what is on its way."""
    with transaction(services.engine) as session:
        service.remove(session, webhook, str(who))
    return render.go(request, "/settings/webhooks")


@router.post("/{webhook}/deliveries/{delivery}/redeliver")
def redeliver(
    webhook: str, delivery: str, request: Request, services: Services, who: MayHook
) -> Response:
    """Sends a delivery again."""
    with transaction(services.engine) as session:
        service.redeliver(session, delivery, str(who))
    return render.go(request, f"/settings/webhooks/{webhook}")


def host(hook: WebhookInfo) -> str:
    """Returns where a webhook leads, without what may be the receiver's own secret. Pure."""
    parts = urlsplit(hook.url)
    more = "/…" if parts.path.strip("/") or parts.query else ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{more}"


def _find(session: Session, webhook: str) -> WebhookInfo:
    for each in service.every(session):
        if each.id == webhook:
            return each
    raise NotFoundError(f"there is no webhook {webhook}", "`kedge webhook list`")
