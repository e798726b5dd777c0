"""``/tuf`` for clients, ``/api/v1/repository`` for publishers."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from sqlmodel import Session

from kedge_server.artifacts.downloads import download
from kedge_server.audit.service import record
from kedge_server.auth import AnyToken, MayPublish, MayRead
from kedge_server.bodies import read_bytes
from kedge_server.context import Context, Services
from kedge_server.database import transaction
from kedge_server.errors import NotFoundError, RequestError
from kedge_server.releases import service as releases
from kedge_server.repository.service import TARGETS_LIMIT_BYTES, hashes
from kedge_server.repository.withdrawal import withdraw
from kedge_shared import wire
from kedge_shared.api import RepositoryState
from kedge_shared.errors import InputError

router = APIRouter(tags=["repository"])


@router.get("/tuf/metadata/{name}", response_class=Response, summary="TUF metadata")
def metadata(name: str, services: Services, _: AnyToken) -> Response:
    """Sends a role's metadata, consistent-snapshot names."""
    with transaction(services.engine) as session:
        body = services.repository.metadata(session, name)
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


@router.get("/tuf/targets/{path:path}", response_class=FileResponse, summary="TUF target file")
def target(path: str, request: Request, services: Services, _: AnyToken) -> Response:
    """Sends a listed target; the last segment is prefixed with its hash."""
    folder, _slash, last = path.rpartition("/")
    digest, _dot, name = last.partition(".")
    plain = f"{folder}/{name}" if folder else name
    with transaction(services.engine) as session:
        listed = services.repository.targets(session).get(plain)
    if listed is None or listed.hashes.get("sha256") != digest:
        raise NotFoundError(f"{plain} is not listed")
    return download(services, digest, request.headers)


@router.get("/api/v1/repository", summary="Versions of the image repository")
def state(services: Services, _: MayRead) -> RepositoryState:
    """Returns the newest version of every role."""
    with transaction(services.engine) as session:
        return services.repository.state(session)


@router.post("/api/v1/repository/metadata", summary="Publish signed metadata of several roles")
async def publish_metadata(
    request: Request, services: Services, who: MayPublish
) -> RepositoryState:
    """Takes root, targets and models' metadata, whole or not at all.

    Each names its own version, which must follow the one that stands: 412 when somebody published
    one of them in between. That is what ``If-Match`` would say, and it is signed.
    """
    body = await read_bytes(request, TARGETS_LIMIT_BYTES)
    try:
        texts = wire.decode(body, dict[str, str], "metadata")
    except InputError as error:
        raise RequestError(error.what, "send a JSON object of role and metadata") from None
    offered = {role: text.encode() for role, text in texts.items()}

    def work() -> RepositoryState:
        with transaction(services.engine) as session:
            found = _publish(session, services, offered, str(who))
        services.follower.follow()
        return found

    return await run_in_threadpool(work)


def _publish(
    session: Session, services: Context, offered: Mapping[str, bytes], who: str
) -> RepositoryState:
    before = services.repository.targets(session)
    after = services.repository.follow(session, offered)
    listed = after.listed
    releases.index(session, services.store, hashes(listed), listed, who)
    for role in offered:
        if role != "targets":
            record(session, who, "sign", role, "")
    withdraw(session, services.store, before, listed, who)
    found = services.repository.accept(session, offered, after)
    # Refused before it is stored if this server does not hold the key that it names.
    services.director.adopt(services.repository.director(session))
    return found
