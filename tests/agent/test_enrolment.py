"""Enrolment: a refusal ends it, a busy server is waited for as it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from kedge_agent import enrolment
from kedge_agent.server_client import ServerClient
from kedge_shared import wire
from kedge_shared.errors import InputError
from kedge_shared.protocol import Enrolled
from tests.agent.test_settings import settings_of
from tests.shared import samples


def enrol(
    folder: Path, monkeypatch: pytest.MonkeyPatch, statuses: list[int]
) -> tuple[str, list[float]]:
    waits: list[float] = []
    monkeypatch.setenv("KEDGE_ENROL_TOKEN", "token")
    monkeypatch.setattr(enrolment.facts, "gather", samples.facts)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(enrolment.asyncio, "sleep", sleep)

    def answer(_: httpx.Request) -> httpx.Response:
        status = statuses.pop(0)
        data = wire.encode(Enrolled(device="cam-1", token="t")) if status == 200 else b"{}"
        headers = {"Retry-After": "17"} if status == 429 else {}
        return httpx.Response(status, headers=headers, stream=Body(data))

    async def work() -> str:
        transport = httpx.MockTransport(answer)
        async with ServerClient("https://kedge.example", transport) as server:
            return (await enrolment.enrolled(settings_of(folder), server)).device

    return asyncio.run(work()), waits


class Body(httpx.AsyncByteStream):
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.data


def test_a_busy_server_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, waits = enrol(tmp_path, monkeypatch, [503, 429, 408, 200])
    assert device == "cam-1"
    assert waits[0] <= 2
    assert 17 <= waits[1] <= 18.7
    assert waits[2] <= 8


@pytest.mark.parametrize("status", [400, 401, 403, 409])
def test_a_refusal_is_for_a_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    with pytest.raises(InputError, match="make a token"):
        enrol(tmp_path, monkeypatch, [status])
