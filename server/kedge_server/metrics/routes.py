"""``/metrics``."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Annotated, cast

from fastapi import APIRouter, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client.exposition import choose_encoder

from kedge_server.context import Services
from kedge_server.errors import UnauthorizedError
from kedge_server.metrics.service import Metrics

router = APIRouter(tags=["metrics"])
_bearer = HTTPBearer(auto_error=False, scheme_name="metricsToken", description="`metrics_token`.")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
#: Set by proxies: what comes through one on this machine comes from elsewhere.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


@router.get("/metrics", summary="For Prometheus", response_class=Response)
def metrics(request: Request, services: Services, credentials: Credentials) -> Response:
    """Tells Prometheus; who may ask is a matter of ``metrics_token``, not of the operator's."""
    token = services.settings.metrics_token
    if token is None:
        if not _from_here(request):
            raise UnauthorizedError(
                "metrics are for this machine alone", "set KEDGE_SERVER_METRICS_TOKEN"
            )
    elif credentials is None or not hmac.compare_digest(
        credentials.credentials.encode(), token.get_secret_value().encode()
    ):
        raise UnauthorizedError("this token does not read metrics")
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    held = cast("Metrics", request.app.state.metrics)
    return Response(encode(held.registry), media_type=kind)


def _from_here(request: Request) -> bool:
    if any(each in request.headers for each in _FORWARDED) or request.client is None:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
