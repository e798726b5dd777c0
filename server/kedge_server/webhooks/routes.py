"""``/api/v1/webhooks``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from kedge_server.auth import MayHook
from kedge_server.bodies import BoundedRoute
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.webhooks import service
from kedge_shared.events import DeliveryInfo, WebhookInfo, WebhookRequest

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"], route_class=BoundedRoute)


@router.post("", status_code=201, summary="Have events sent somewhere")
def add(request: WebhookRequest, services: Services, who: MayHook) -> WebhookInfo:
    """Makes a webhook; its secret is shown here and nowhere else."""
    with transaction(services.engine) as session:
        return service.add(session, request, str(who))


@router.get("", summary="Every webhook")
def every(services: Services, _: MayHook) -> list[WebhookInfo]:
    """Returns every webhook, without secrets."""
    with transaction(services.engine) as session:
        return service.every(session)


@router.delete("/{webhook}", status_code=204, response_class=Response, summary="Remove a webhook")
def remove(webhook: str, services: Services, who: MayHook) -> Response:
    """Removes it with what is on its way."""
    with transaction(services.engine) as session:
        service.remove(session, webhook, str(who))
    return Response(status_code=204)


@router.post("/{webhook}/enable", summary="Take a disabled webhook up again")
def enable(webhook: str, services: Services, who: MayHook) -> WebhookInfo:
    """Takes it up again; what waits for it is sent."""
    with transaction(services.engine) as session:
        return service.enable(session, webhook, str(who))


@router.post("/{webhook}/test", status_code=202, summary="Send a test event")
def test(webhook: str, services: Services, who: MayHook) -> DeliveryInfo:
    """Queues a ``webhook.test`` event for it alone; its deliveries tell what came of it."""
    with transaction(services.engine) as session:
        return service.test(session, webhook, str(who))


@router.get("/{webhook}/deliveries", summary="What was sent, and what became of it")
def deliveries(
    webhook: str, services: Services, _: MayHook,
    most: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[DeliveryInfo]:  # fmt: skip
    """Returns deliveries of a week, newest first."""
    with transaction(services.engine) as session:
        return service.deliveries(session, webhook, most)


@router.post("/deliveries/{delivery}/redeliver", summary="Send a delivery again")
def redeliver(delivery: str, services: Services, who: MayHook) -> DeliveryInfo:
    """Sends it again under the same id."""
    with transaction(services.engine) as session:
        return service.redeliver(session, delivery, str(who))
