"""``/api/v1/artifacts``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from kedge_server.artifacts.downloads import download
from kedge_server.artifacts.store import immutable_headers
from kedge_server.auth import AnyToken, MayPublish
from kedge_server.context import Services
from kedge_server.database import now, transaction
from kedge_server.errors import AwayError
from kedge_server.rollouts import slots

router = APIRouter(prefix="/api/v1/artifacts", tags=["artifacts"])


@router.put("/{sha256}", status_code=201, response_class=Response, summary="Upload an artifact")
async def upload(sha256: str, request: Request, services: Services, _: MayPublish) -> Response:
    """Streams an artifact in; its hash is its name. 201 when new, 200 when it was there."""
    fresh = await services.store.receive(sha256, request.stream())
    return Response(status_code=201 if fresh else 200)


@router.head("/{sha256}", response_class=Response, summary="Is an artifact there?")
def head(sha256: str, services: Services, _: AnyToken) -> Response:
    """Answers 200 with its length, or 404."""
    services.store.claim(sha256)  # a publisher that is told "yes" will not upload it
    return Response(
        headers={**immutable_headers(sha256), "Content-Length": str(services.store.length(sha256))}
    )


@router.get("/{sha256}", response_class=FileResponse, summary="Download an artifact")
def get(sha256: str, request: Request, services: Services, who: AnyToken) -> Response:
    """Sends it, or the range that was asked for (206, 416; If-Range holds the hash).

    A board whose rollout admits no more downloads is told when to come back (503, Retry-After).
    """
    length = services.store.length(sha256)  # 404 when it is not here
    with transaction(services.engine) as session:
        wait = slots.admit(session, who, length, now(session))
    if wait:
        raise AwayError(
            "others of this rollout download first", f"ask in {wait} s", retry_after=wait
        )
    return download(services, sha256, request.headers)
