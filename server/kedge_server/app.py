"""Wires the server: the one place where parts meet."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Lifespan

from kedge_server import scheduler
from kedge_server.accounts.service import first_admin
from kedge_server.answers import DATABASE_ERRORS, problem_of
from kedge_server.artifacts.bucket import BucketStore
from kedge_server.artifacts.slots import Slots
from kedge_server.artifacts.store import ArtifactStore, Store
from kedge_server.console import render
from kedge_server.console.app import add_console
from kedge_server.console.route import error_page, wants_page
from kedge_server.context import Context
from kedge_server.database import connect, transaction, upgrade
from kedge_server.devices import intake, polling
from kedge_server.devices.access import Access, secret_of
from kedge_server.devices.assignments import Director
from kedge_server.devices.door import Door, Handlers
from kedge_server.devices.index import PollIndex
from kedge_server.devices.intake import Intake
from kedge_server.devices.polling import Polls
from kedge_server.docs import add_docs
from kedge_server.events.stream import Feed
from kedge_server.headers import HEADERS, SecurityHeaders
from kedge_server.metrics.service import Metrics
from kedge_server.metrics.traffic import TrafficLayer
from kedge_server.refusals import RefusalLimit
from kedge_server.replicas.follower import Follower
from kedge_server.replicas.lease import Lease
from kedge_server.repository.service import ImageRepository
from kedge_server.repository.signers import load_keys
from kedge_server.settings import ServerSettings
from kedge_server.throttle import Rate, Throttle
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
        store = _store(settings)
        token = operator_token(settings)
    except OSError as error:
        raise StorageError(f"{settings.data} cannot be written: {error.strerror}") from None
    keys = load_keys(settings.trust)
    url = settings.database.get_secret_value() if settings.database else ""
    engine = connect(url or settings.data / "kedge.db", settings.connections)
    upgrade(engine)
    repository = ImageRepository(
        keys,
        store,
        timedelta(hours=settings.timestamp_hours),
        timedelta(days=settings.snapshot_days),
    )
    index = PollIndex()
    director = Director(
        keys.directors, settings.assignment_days * _DAY, holds_clones=settings.clones == "hold"
    )
    follower = Follower(engine, index, repository, director)
    with transaction(engine) as session:
        repository.open(session, settings.trust / "repository")
        first_admin(session, token)
        follower.open(session)
    return Context(
        settings=settings, engine=engine, store=store, repository=repository, director=director,
        index=index, follower=follower, lease=Lease(settings.lease_seconds),
        slots=Slots(settings.download_slots), throttle=Throttle(),
        access=Access(secret_of(keys.directors), settings.access_minutes * 60),
    )  # fmt: skip


def _store(settings: ServerSettings) -> Store:
    limit = settings.artifact_limit_mb * 2**20
    if settings.store is not None and settings.store.startswith("s3://"):
        return BucketStore(settings.store, limit)
    folder = Path(settings.store) if settings.store else settings.data / "artifacts"
    return ArtifactStore(folder, limit, alone=settings.store is None)


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


def create_app(context: Context) -> Door:
    """Returns the application over an open context; the scheduler runs while it does."""
    polls, reports = Polls(context), Intake(context)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        running = await run_in_threadpool(scheduler.start, context)
        app.state.metrics.jobs.watch(running)
        warming = asyncio.create_task(run_in_threadpool(render.warm))
        yield
        await warming
        await run_in_threadpool(scheduler.stop, context, running)
        polls.close()
        reports.close()
        context.engine.dispose()

    app = routed(life)
    app.state.context = context
    app.state.metrics, app.state.feed = Metrics(context), Feed(context)
    settings = context.settings
    rate = Rate(settings.refusals_at_once, 60 / settings.refusals_per_minute)
    app.add_middleware(RefusalLimit, throttle=context.throttle, rate=rate)
    app.add_middleware(SecurityHeaders)
    _add_errors(app)
    # Before FastAPI's own middleware too: it costs as much as the answer to a poll.
    handlers: Handlers = {
        ("GET", polling.PATH): polls.answer,
        ("POST", intake.PATH): reports.answer,
    }
    traffic = app.state.metrics.traffic
    # Around the rest: what any other layer answers is counted too.
    return Door(TrafficLayer(app, traffic), handlers, traffic)


def routed(life: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Returns every route there is, with nothing behind it: what the API's description is of."""
    app = FastAPI(
        title="Kedge",
        version=__version__,
        summary="Over-the-air updates for vision models.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        responses={status: {"model": Problem} for status in (400, 401, 403, 404, 409, 422)},
    )
    _add_routes(app)
    return app


def _add_routes(app: FastAPI) -> None:
    from kedge_server.accounts import routes as account_routes
    from kedge_server.artifacts import routes as artifact_routes
    from kedge_server.attestations import routes as attestation_routes
    from kedge_server.audit import routes as audit_routes
    from kedge_server.bench import routes as bench_routes
    from kedge_server.devices import admission_routes, key_routes
    from kedge_server.devices import routes as device_routes
    from kedge_server.events import routes as event_routes
    from kedge_server.fleet import routes as fleet_routes
    from kedge_server.metrics import routes as metrics_routes
    from kedge_server.releases import routes as release_routes
    from kedge_server.repository import routes as repository_routes
    from kedge_server.rollouts import routes as rollout_routes
    from kedge_server.telemetry import routes as telemetry_routes
    from kedge_server.webhooks import routes as webhook_routes

    for each in (account_routes, admission_routes, artifact_routes, attestation_routes,
                 audit_routes, bench_routes, device_routes, event_routes, fleet_routes, key_routes,
                 metrics_routes, release_routes, repository_routes, rollout_routes,
                 telemetry_routes, webhook_routes):  # fmt: skip
        app.include_router(each.router)

    @app.get("/healthz", tags=["health"], summary="Is the server up?")
    def healthz() -> dict[str, str]:
        """Answers while the server can; ``alarm`` says what a person must see to."""
        alarm = app.state.context.repository.alarm
        status = {"status": "alarm", "alarm": alarm} if alarm else {"status": "ok"}
        return {**status, "version": __version__}

    add_docs(app)
    add_console(app)


def _add_errors(app: FastAPI) -> None:
    def known(_: Request, error: Exception) -> Response:
        status, body, headers = problem_of(error)
        return Response(body, status, headers, "application/json")

    for each in (KedgeError, *DATABASE_ERRORS):
        app.add_exception_handler(each, known)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(each) for each in first["loc"])
        return _answer(422, f"{where}: {first['msg']}", "see /docs")

    @app.exception_handler(ClientDisconnect)
    def gone(_: Request, __: ClientDisconnect) -> Response:
        # Nobody reads it: a board lost power, a publisher pressed Ctrl-C. No bug of the server's.
        return _answer(400, "the sender went away", "")

    @app.exception_handler(Exception)
    def broken(_: Request, __: Exception) -> Response:
        # Boundary: a bug of ours; the error goes on to the log, and nothing of it to who asked.
        # This answer is made outside of every middleware.
        problem = _answer(500, "the server has a bug; its log says more", "")
        problem.headers.update(HEADERS)
        return problem

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> Response:
        if wants_page(request):
            return error_page(request, error)
        return _answer(error.status_code, str(error.detail), "")


def _answer(status: int, what: str, mend: str) -> Response:
    return Response(wire.encode(Problem(error=what, mend=mend)), status, None, "application/json")
