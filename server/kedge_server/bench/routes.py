"""``/api/v1/bench`` for builders, ``/api/v1/device/bench`` for workers."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from kedge_server.auth import Device, MayBench
from kedge_server.bench import service
from kedge_server.bodies import SIGNED_BODY, read_signed
from kedge_server.context import Services
from kedge_server.database import transaction
from kedge_shared.bench import (
    JOB_LIMIT_BYTES,
    RESULT_LIMIT_BYTES,
    BenchJobInfo,
    BenchOffer,
    BenchTaken,
)

router = APIRouter(tags=["bench"])


@router.post(
    "/api/v1/bench/jobs", status_code=201, summary="Post a bench job", openapi_extra=SIGNED_BODY
)
async def post(request: Request, services: Services, who: MayBench) -> BenchJobInfo:
    """Takes a job that a builder signed; its files are uploaded before. Harmless to repeat."""
    body = await read_signed(request, JOB_LIMIT_BYTES)

    def work() -> BenchJobInfo:
        with transaction(services.engine) as session:
            return service.post(session, services.store, body, str(who))

    return await run_in_threadpool(work)


@router.get("/api/v1/bench/jobs", summary="Newest bench jobs")
def jobs(
    services: Services, _: MayBench, most: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[BenchJobInfo]:
    """Returns jobs, newest first."""
    with transaction(services.engine) as session:
        return service.newest(session, most)


@router.get("/api/v1/bench/jobs/{job}", summary="One bench job")
def show(job: str, services: Services, _: MayBench) -> BenchJobInfo:
    """Returns where a job stands, and its result once there is one."""
    with transaction(services.engine) as session:
        return service.info(service.find(session, job))


@router.post("/api/v1/bench/jobs/{job}/withdraw", summary="Take a bench job back")
def withdraw(job: str, services: Services, who: MayBench) -> BenchJobInfo:
    """Lets nobody begin it any more."""
    with transaction(services.engine) as session:
        return service.withdraw(session, job, str(who))


@router.post("/api/v1/device/bench/claim", summary="Is there something to measure?")
def claim(services: Services, device: Device) -> BenchOffer:
    """Gives the oldest job of the device's class to it alone, for the time of a lease."""
    services.index.saw(device)
    lease = services.settings.bench_lease_seconds
    with transaction(services.engine) as session:
        row = service.claim(session, device, lease)
        return BenchOffer(
            id=row.id if row else "", job=json.loads(row.envelope) if row else None,
            lease_seconds=lease, next_seconds=services.settings.bench_poll_seconds,
        )  # fmt: skip


@router.post(
    "/api/v1/device/bench/jobs/{job}/renew", status_code=204, response_class=Response,
    summary="Keep a job",
)  # fmt: skip
def renew(job: str, services: Services, device: Device) -> Response:
    """Begins the lease anew for the worker that holds it."""
    with transaction(services.engine) as session:
        service.renew(session, device, job, services.settings.bench_lease_seconds)
    return Response(status_code=204)


@router.post(
    "/api/v1/device/bench/results", summary="Take a signed bench result", openapi_extra=SIGNED_BODY
)
async def result(request: Request, services: Services, device: Device) -> BenchTaken:
    """Takes what the worker that holds a job measured, once; harmless to repeat."""
    body = await read_signed(request, RESULT_LIMIT_BYTES)

    def work() -> BenchTaken:
        with transaction(services.engine) as session:
            return service.take_result(session, device, body)

    return await run_in_threadpool(work)
