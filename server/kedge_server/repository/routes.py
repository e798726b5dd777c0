"""``/tuf`` for clients, ``/api/v1/repository`` for publishers."""

from __future__ import annotations

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import FileResponse

from kedge_server.artifacts.routes import immutable_headers
from kedge_server.auth import AnyToken, Operator
from kedge_server.bodies import read_bytes
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_server.errors import NotFoundError, RequestError
from kedge_server.releases import service as releases
from kedge_server.repository.service import TARGETS_LIMIT_BYTES, hashes
from kedge_shared.api import RepositoryState

router = APIRouter(tags=["repository"])


@router.get("/tuf/metadata/{name}", response_class=Response, summary="TUF metadata")
def metadata(name: str, services: Services, _: AnyToken) -> Response:
    """Sends a role's metadata, consistent-snapshot names."""
    with transaction(services.engine) as session:
        body = services.repository.metadata(session, name)
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


@router.get("/tuf/targets/{path:path}", response_class=FileResponse, summary="TUF target file")
def target(path: str, services: Services, _: AnyToken) -> Response:
    """Sends a listed target; the last segment is prefixed with its hash."""
    folder, _slash, last = path.rpartition("/")
    digest, _dot, name = last.partition(".")
    plain = f"{folder}/{name}" if folder else name
    with transaction(services.engine) as session:
        listed = services.repository.targets(session).get(plain)
    if listed is None or listed.hashes.get("sha256") != digest:
        raise NotFoundError(f"{plain} is not listed")
    return FileResponse(services.store.path(digest), headers=immutable_headers(digest))


@router.get("/api/v1/repository", summary="Versions of the image repository")
def state(services: Services, response: Response, _: Operator) -> RepositoryState:
    """Returns the newest version of every role; the ETag is that of the targets."""
    with transaction(services.engine) as session:
        found = services.repository.state(session)
    response.headers["ETag"] = f'"{found.targets}"'
    return found


@router.post("/api/v1/repository/targets", summary="Publish signed targets")
async def publish(
    request: Request, services: Services, who: Operator, if_match: str = Header()
) -> RepositoryState:
    """Takes targets that the builders signed. 412 when somebody published in between."""
    body = await read_bytes(request, TARGETS_LIMIT_BYTES)
    expected = if_match.strip('"')
    if not expected.isdigit():
        raise RequestError("If-Match is no version", "send the version that was fetched")
    with transaction(services.engine) as session:
        offered = services.repository.check(session, body, int(expected))
        listed = hashes(offered.signed.targets)
        releases.index(session, services.store, listed, offered.signed.targets, who)
        found = services.repository.accept(session, body, offered)
    services.index.forget_all()
    return found
