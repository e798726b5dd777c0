"""The board's side of the HTTP API."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TypeVar

import anyio
import httpx

from kedge_agent.network import tls
from kedge_agent.network.backoff import retry_after_seconds
from kedge_shared import __version__, bench, protocol, wire
from kedge_shared.access import AccessToken, Nonce
from kedge_shared.admission import Waiting
from kedge_shared.client import check_url, refusal
from kedge_shared.errors import ServiceError

T = TypeVar("T")

#: Connection; then silence between two chunks, seconds.
TIMEOUT = httpx.Timeout(20.0, connect=10.0)
#: From the first byte of a request to the last of its answer (of a download: to the end of its
#: headers). A server that drips is never silent and still not waited for.
ANSWER_SECONDS = 120.0
#: One server, a request at a time: the connection is kept over an ordinary poll interval, so that
#: a poll costs no handshake.
LIMITS = httpx.Limits(max_connections=4, max_keepalive_connections=2, keepalive_expiry=300.0)
#: A bench job with a thousand class names fits, as an assignment does.
_ANSWER_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True)
class PollResult:
    """What a poll brought.

    Attributes:
        answer: News, or ``None`` when nothing is new.
        etag: For the next poll.
        next_seconds: When to ask again, or ``None`` when the server does not say.
    """

    answer: protocol.PollAnswer | None
    etag: str
    next_seconds: float | None


class Renewal(Protocol):
    """Fetches the access tokens that a connection bears (kedge_agent.access)."""

    def due(self) -> bool:
        """Says whether it is time for another token."""
        ...

    async def renew(self, server: ServerClient) -> str:
        """Returns a fresh token."""
        ...


class ServerClient:
    """One keep-alive connection to the server.

    Attributes:
        base: Address of the server.
        http: The connection.

    Args:
        server: Address.
        transport: Instead of the network, in tests.
        answer_seconds: How long a whole answer may take.
    """

    def __init__(
        self,
        server: str,
        transport: httpx.AsyncBaseTransport | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.base, self._answer_seconds = check_url(server), answer_seconds
        self._renewal: Renewal | None = None
        self.http = httpx.AsyncClient(
            base_url=self.base,
            timeout=TIMEOUT,
            transport=transport,
            limits=LIMITS,
            verify=tls.context(),
            # Nothing is unpacked here: a few bytes could become very many.
            headers={"Accept-Encoding": "identity", "User-Agent": f"kedge-agent/{__version__}"},
        )

    def authorise(self, token: str) -> None:
        """Sends ``token`` with every request from now on."""
        self.http.headers["Authorization"] = f"Bearer {token}"

    def keep_access(self, renewal: Renewal) -> None:
        """Fetches a token when one is due, or when the server does not take the last one."""
        self._renewal = renewal

    async def renew_access(self) -> None:
        """Fetches a token if one is due, before connections that bear the same one are used.

        Raises:
            ServiceError: The server is down, or refuses this board.
        """
        if self._renewal is not None and self._renewal.due():
            self.authorise(await self._renewal.renew(self))

    def bearer(self) -> str:
        """Returns the token that counts now."""
        return str(self.http.headers.get("Authorization", "")).removeprefix("Bearer ")

    async def __aenter__(self) -> ServerClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()

    async def enrol(
        self, envelope: dict[str, object], token: str = ""
    ) -> protocol.Enrolled | Waiting:
        """Enrols with a one-time token, or asks without one.

        Raises:
            ServiceError: The server is down or refuses.
        """
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        body = await self._exchanged("POST", "/api/v1/enrol", wire.encode(envelope), headers)
        if body.status_code == httpx.codes.ACCEPTED:
            return wire.decode(body.content, Waiting, "server's answer")
        return wire.decode(body.content, protocol.Enrolled, "server's answer")

    async def nonce(self) -> str:
        """Fetches a nonce to sign.

        Raises:
            ServiceError: The server is down.
        """
        body = await self._exchanged("POST", "/api/v1/device/nonce", None, {})
        return wire.decode(body.content, Nonce, "server's answer").nonce

    async def access(self, envelope: dict[str, Any]) -> AccessToken:
        """Fetches an access token for a signed nonce.

        Raises:
            ServiceError: The server is down, or refuses this board.
        """
        path = "/api/v1/device/token"
        body = await self._exchanged("POST", path, wire.encode(envelope), {})
        return wire.decode(body.content, AccessToken, "server's answer")

    async def change_key(self, envelope: dict[str, Any]) -> None:
        """Puts a new key in the old one's place; both have signed.

        Raises:
            ServiceError: The server is down, or refuses.
        """
        await self._exchanged("POST", "/api/v1/device/key", wire.encode(envelope), {})

    async def poll(self, etag: str, counter: int) -> PollResult:
        """Asks for news.

        Args:
            etag: Of the last answer that was taken up; empty for none.
            counter: Newest assignment counter this board has accepted.

        Raises:
            ServiceError: The server is down or refuses.
        """
        headers = {protocol.HEADER_COUNTER: str(counter)}
        if etag:
            headers["If-None-Match"] = etag
        answer = await self._send("GET", "/api/v1/device/poll", None, headers)
        news = None
        if answer.status_code != httpx.codes.NOT_MODIFIED:
            news = wire.decode(answer.content, protocol.PollAnswer, "server's answer")
        interval = answer.headers.get(protocol.HEADER_INTERVAL, "")
        return PollResult(news, answer.headers.get("ETag", ""), _seconds(interval))

    async def report(self, envelopes: list[dict[str, Any]]) -> None:
        """Sends signed reports; the server takes each once.

        Raises:
            ServiceError: The server is down or refuses.
        """
        await self._send("POST", "/api/v1/device/reports", wire.encode(envelopes), {})

    async def claim_bench_job(self) -> bench.BenchOffer:
        """Asks for something to measure.

        Raises:
            ServiceError: The server is down or refuses.
        """
        body = await self._send("POST", "/api/v1/device/bench/claim", None, {})
        return wire.decode(body.content, bench.BenchOffer, "server's answer")

    async def renew_bench_job(self, job: str) -> None:
        """Keeps a job that this board holds.

        Raises:
            ServiceError: The server is down, or the job is another's.
        """
        await self._send("POST", f"/api/v1/device/bench/jobs/{job}/renew", None, {})

    async def send_bench_result(self, envelope: dict[str, Any]) -> None:
        """Sends a signed result; the server takes it once.

        Raises:
            ServiceError: The server is down or refuses.
        """
        path = "/api/v1/device/bench/results"
        await self._send("POST", path, wire.encode(envelope), {})

    async def _send(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> httpx.Response:
        """Sends a request with a token that the server takes."""
        if self._renewal is None:
            return await self._exchanged(method, path, content, headers)
        await self.renew_access()
        try:
            return await self._exchanged(method, path, content, headers)
        except ServiceError as error:
            if error.status != httpx.codes.UNAUTHORIZED:
                raise
        # It was restarted with other keys, or this board's key was changed meanwhile.
        self.authorise(await self._renewal.renew(self))
        return await self._exchanged(method, path, content, headers)

    async def _exchanged(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> httpx.Response:
        if content is not None:
            headers = {"Content-Type": "application/json", **headers}
        request = self.http.build_request(method, path, content=content, headers=headers)
        try:
            answer = await within(self._answer_seconds, self._exchange(request))
        except httpx.TransportError as error:
            raise ServiceError(
                f"server {self.base} does not answer ({type(error).__name__})"
            ) from None
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return answer
        refused = refusal(self.base, answer)
        if isinstance(refused, ServiceError):
            refused.retry_after = asked_to_wait(answer)
        raise refused

    async def _exchange(self, request: httpx.Request) -> httpx.Response:
        answer = await self.http.send(request, stream=True)
        try:
            await _read_limited(answer)
        finally:
            await answer.aclose()
        return answer


async def within(seconds: float, work: Awaitable[T]) -> T:
    """Waits so long and no longer.

    Not by ``asyncio.wait_for``: before Python 3.12 it swallows a cancellation that comes together
    with the answer (cpython issue 86296), and an updater that was told to end went on.

    Raises:
        httpx.ReadTimeout: It took longer.
    """
    try:
        with anyio.fail_after(seconds):
            answer = await work
        return answer
    except TimeoutError:
        raise httpx.ReadTimeout(f"no whole answer within {seconds:g} s") from None


async def _read_limited(answer: httpx.Response) -> None:
    """Reads a body of bounded length; it stands in ``answer.content`` afterwards."""
    check_encoding(answer)
    chunks, total = [], 0
    async for chunk in answer.aiter_raw():
        total += len(chunk)
        if total > _ANSWER_LIMIT_BYTES:
            raise ServiceError("server's answer is too long")
        chunks.append(chunk)
    answer._content = b"".join(chunks)


def check_encoding(answer: httpx.Response) -> None:
    """Checks that a body comes as it is, so that its length is what is counted.

    Raises:
        ServiceError: It is packed, though nobody asked for that.
    """
    packed = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in {"", "identity"}:
        raise ServiceError(f"server sends {packed[:20]} though nobody asked for it")


def asked_to_wait(answer: httpx.Response) -> float | None:
    """Returns how long the server wants to be left alone, seconds, or ``None``."""
    headers = answer.headers
    return retry_after_seconds(headers.get("Retry-After", ""), headers.get("Date", ""), time.time())


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds <= 86400 else None
