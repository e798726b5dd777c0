"""Wires the server: the one place where parts meet."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from sqlmodel import select
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kedge_server import scheduler
from kedge_server.artifacts.store import ArtifactStore
from kedge_server.auth import token_hash
from kedge_server.context import Context
from kedge_server.database import connect, transaction, upgrade
from kedge_server.devices.assignments import Director
from kedge_server.devices.index import PollIndex
from kedge_server.devices.tables import DeviceRow
from kedge_server.docs import add_docs
from kedge_server.errors import RequestError
from kedge_server.headers import HEADERS, SecurityHeaders
from kedge_server.repository.service import ImageRepository
from kedge_server.repository.signers import load_keys
from kedge_server.settings import ServerSettings
from kedge_server.throttle import Budget, Throttle
from kedge_shared import __version__, wire
from kedge_shared.api import Problem
from kedge_shared.errors import KedgeError, StorageError

_DAY = 86400
TOKEN_FILE = "operator.token"  # noqa: S105 - the name of a file


def open_context(settings: ServerSettings) -> Context:
    """Opens everything a server needs.

    Raises:
        InputError: Keys or first metadata are missing or do not belong together.
        StorageError: The data folder cannot be written, or is a newer server's.
    """
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = ArtifactStore(settings.data / "artifacts", settings.artifact_limit_mb * 2**20)
        token = operator_token(settings)
    except OSError as error:
        raise StorageError(f"{settings.data} cannot be written: {error.strerror}") from None
    keys = load_keys(settings.trust)
    engine = connect(settings.data / "kedge.db")
    upgrade(engine)
    repository = ImageRepository(
        keys,
        store,
        timedelta(hours=settings.timestamp_hours),
        timedelta(days=settings.snapshot_days),
    )
    index = PollIndex()
    with transaction(engine) as session:
        repository.open(session, settings.trust / "repository")
        director = Director(keys.directors, settings.assignment_days * _DAY)
        director.adopt(repository.director(session))
        for row in session.exec(select(DeviceRow)):
            index.add_device(row.id, row.token_hash)
    return Context(
        settings=settings, engine=engine, store=store, repository=repository, director=director,
        index=index, operator_hash=token_hash(token),
    )  # fmt: skip


def operator_token(settings: ServerSettings) -> str:
    """Returns the operator's token; made at the first start, readable by this user alone."""
    if settings.operator_token is not None:
        return settings.operator_token.get_secret_value()
    path = settings.data / TOKEN_FILE
    if not path.exists():
        # Aside first: a full disk must not leave an empty token that later starts go by.
        scratch = path.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        scratch.replace(path)
    return path.read_text().strip()


def create_app(context: Context) -> FastAPI:
    """Returns the application over an open context; the scheduler runs while it does."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        running = scheduler.start(context)
        yield
        running.shutdown(wait=True)
        context.engine.dispose()

    problem = {"model": Problem}
    app = FastAPI(
        title="Kedge",
        version=__version__,
        summary="Over-the-air updates for vision models.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        responses={400: problem, 401: problem, 404: problem, 409: problem, 422: problem},
    )
    app.state.context = context
    _add_routes(app)
    _add_errors(app)
    return app


def _add_routes(app: FastAPI) -> None:
    from kedge_server.artifacts import routes as artifact_routes
    from kedge_server.attestations import routes as attestation_routes
    from kedge_server.audit import routes as audit_routes
    from kedge_server.bench import routes as bench_routes
    from kedge_server.devices import routes as device_routes
    from kedge_server.releases import routes as release_routes
    from kedge_server.repository import routes as repository_routes
    from kedge_server.rollouts import routes as rollout_routes

    for each in (artifact_routes, attestation_routes, audit_routes, bench_routes, device_routes,
                 release_routes, repository_routes, rollout_routes):  # fmt: skip
        app.include_router(each.router)

    @app.get("/healthz", tags=["health"], summary="Is the server up?")
    def healthz() -> dict[str, str]:
        """Answers while the server can; ``alarm`` says what a person must see to."""
        alarm = app.state.context.repository.alarm
        status = {"status": "alarm", "alarm": alarm} if alarm else {"status": "ok"}
        return {**status, "version": __version__}

    add_docs(app)
    settings = app.state.context.settings
    budget = Budget(settings.refusals_at_once, settings.refusals_per_minute)
    app.add_middleware(Throttle, budget=budget)
    app.add_middleware(SecurityHeaders)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(KedgeError)
    def known(_: Request, error: KedgeError) -> JSONResponse:
        status = error.status if isinstance(error, RequestError) else 400
        return _answer(status, error.what, error.mend)

    @app.exception_handler(OperationalError)
    def unwritable(_: Request, error: OperationalError) -> JSONResponse:
        return _answer(507, f"database cannot be written: {error.orig}", "free space on the server")

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        return _answer(422, f"{where}: {first['msg']}", "see /docs")

    @app.exception_handler(ClientDisconnect)
    def gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        # Nobody reads it: a board lost power, a publisher pressed Ctrl-C. No bug of the server's.
        return _answer(400, "the sender went away", "")

    @app.exception_handler(Exception)
    def broken(_: Request, __: Exception) -> JSONResponse:
        # Boundary: a bug of ours; the error goes on to the log, and nothing of it to who asked.
        # This answer is made outside of every middleware.
        problem = _answer(500, "the server has a bug; its log says more", "")
        problem.headers.update(HEADERS)
        return problem

    @app.exception_handler(HTTPException)
    def other(_: Request, error: HTTPException) -> JSONResponse:
        return _answer(error.status_code, str(error.detail), "")


def _answer(status: int, what: str, mend: str) -> JSONResponse:
    return JSONResponse(json.loads(wire.encode(Problem(error=what, mend=mend))), status)
