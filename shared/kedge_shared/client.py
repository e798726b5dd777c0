"""Typed client of the operator API, for the command line, the builder and CI systems."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from kedge_shared import api, bench, wire
from kedge_shared.errors import InputError, KedgeError, ServiceError, StorageError

T = TypeVar("T")

TOKEN_ENV = "KEDGE_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE_ENV = "KEDGE_TOKEN_FILE"  # noqa: S105
SERVER_ENV = "KEDGE_SERVER"
DEFAULT_SERVER = "http://127.0.0.1:8470"

_CHUNK_BYTES = 1024 * 1024
_TOKEN_LIMIT_BYTES = 4096
#: Connection, then silence between two chunks, seconds.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


def read_token(token_file: Path | None = None) -> str:
    """Finds the operator token: file, ``KEDGE_TOKEN_FILE`` or ``KEDGE_TOKEN``; never an argument.

    Raises:
        InputError: There is none, or the file cannot be read.
    """
    from_env = os.environ.get(TOKEN_FILE_ENV)
    path = token_file or (Path(from_env) if from_env else None)
    if path:
        data = wire.read_limited(path, "operator token", _TOKEN_LIMIT_BYTES)
        token = data.decode(errors="replace").strip()
    else:
        token = os.environ.get(TOKEN_ENV, "").strip()
    if not token:
        raise InputError(
            "no operator token",
            f"set {TOKEN_FILE_ENV} to the file the server wrote, or {TOKEN_ENV}",
        )
    if not all("!" <= each <= "~" for each in token):
        raise InputError(
            f"{path or TOKEN_ENV} holds no operator token", "it is one line of letters and digits"
        )
    return token


def check_url(url: str) -> str:
    """Returns the server's address without a trailing slash.

    Raises:
        InputError: Not http(s), or plain HTTP to something else than this machine.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(f"{url!r} is not a server's address", "write https://HOST[:PORT]")
    if parts.scheme == "http" and parts.hostname not in {"127.0.0.1", "localhost", "::1"}:
        raise InputError(f"{url} is plain HTTP beyond this machine", "use https://")
    return url.rstrip("/")


class Client:
    """Talks to one server with an operator token. Use as a context manager.

    Attributes:
        server: Its address, without a trailing slash.
        http: The connection, token included; TUF's downloads share it.

    Args:
        server: Its address.
        token: Operator token.
        transport: Instead of the network, in tests.
    """

    def __init__(
        self, server: str, token: str, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.server = check_url(server)
        self.http = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT,
            transport=transport,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.http.close()

    def releases(self) -> list[api.ReleaseInfo]:
        """Returns every release, newest first."""
        return self._get("/api/v1/releases", list[api.ReleaseInfo])

    def release(self, model: str, release: str) -> api.ReleaseInfo:
        """Returns one release."""
        return self._get(f"/api/v1/releases/{model}/{release}", api.ReleaseInfo)

    def devices(self, filters: Mapping[str, str] | None = None) -> list[api.DeviceInfo]:
        """Returns the devices that match ``filters`` (``device_class``, ``tag``)."""
        return self._get("/api/v1/devices", list[api.DeviceInfo], params=filters)

    def device(self, device: str) -> api.DeviceInfo:
        """Returns one device."""
        return self._get(f"/api/v1/devices/{device}", api.DeviceInfo)

    def device_deployments(self, device: str) -> list[api.DeploymentInfo]:
        """Returns what was ever deployed on a device."""
        return self._get(f"/api/v1/devices/{device}/deployments", list[api.DeploymentInfo])

    def device_assignment(self, device: str) -> api.DeviceAssignment:
        """Returns what a device would be told if it polled now."""
        return self._get(f"/api/v1/devices/{device}/assignment", api.DeviceAssignment)

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Returns a small file of the server's.

        Raises:
            ServiceError: It is longer than ``limit_bytes``, or the server does not send it.
        """
        data = self._send("GET", path).content
        if len(data) > limit_bytes:
            raise ServiceError(f"{path} is larger than {limit_bytes} bytes")
        return data

    def chunks(self, sha256: str) -> Iterator[bytes]:
        """Streams an artifact.

        Raises:
            ServiceError: The server does not send it, or stops in its midst.
        """
        try:
            with self.http.stream("GET", f"/api/v1/artifacts/{sha256}") as answer:
                if not answer.is_success:
                    answer.read()
                    raise refusal(self.server, answer)
                yield from answer.iter_bytes(_CHUNK_BYTES)
        except httpx.TransportError as error:
            said = f"server {self.server} broke off ({type(error).__name__})"
            raise ServiceError(said) from None

    def enrolment_tokens(self, request: api.TokenRequest) -> list[api.EnrolmentToken]:
        """Makes one-time enrolment tokens."""
        return self._post("/api/v1/enrolment-tokens", request, list[api.EnrolmentToken])

    def rollouts(self) -> list[api.RolloutInfo]:
        """Returns every rollout, newest first."""
        return self._get("/api/v1/rollouts", list[api.RolloutInfo])

    def rollout(self, rollout: str) -> api.RolloutInfo:
        """Returns one rollout."""
        return self._get(f"/api/v1/rollouts/{rollout}", api.RolloutInfo)

    def rollout_deployments(self, rollout: str) -> list[api.DeploymentInfo]:
        """Returns a rollout's deployments."""
        return self._get(f"/api/v1/rollouts/{rollout}/deployments", list[api.DeploymentInfo])

    def create_rollout(self, spec: api.RolloutSpec) -> api.RolloutInfo:
        """Starts a rollout or recall."""
        return self._post("/api/v1/rollouts", spec, api.RolloutInfo)

    def plan_rollout(self, spec: api.RolloutSpec) -> api.PlanInfo:
        """Returns what a rollout would do; nothing is changed."""
        return self._post("/api/v1/rollouts/plan", spec, api.PlanInfo)

    def replay_rollout(self, rollout: str) -> list[api.DecisionInfo]:
        """Returns a rollout's decisions, judged again from their stored evidence."""
        return self._get(f"/api/v1/rollouts/{rollout}/replay", list[api.DecisionInfo])

    def change_rollout(self, rollout: str, action: str) -> api.RolloutInfo:
        """Carries out ``pause``, ``resume``, ``halt``, ``stop``, ``approve`` or ``retry``."""
        return self._post(f"/api/v1/rollouts/{rollout}/{action}", None, api.RolloutInfo)

    def repository(self) -> api.RepositoryState:
        """Returns the image repository's versions."""
        return self._get("/api/v1/repository", api.RepositoryState)

    def publish_metadata(self, roles: Mapping[str, bytes]) -> api.RepositoryState:
        """Offers signed metadata of several roles, taken whole or not at all.

        Args:
            roles: Role → metadata; refused (412) if somebody published one of them in between.
        """
        texts = {role: body.decode() for role, body in roles.items()}
        answer = self._send("POST", "/api/v1/repository/metadata", content=wire.encode(texts))
        return wire.decode(answer.content, api.RepositoryState, "server's answer")

    def has_artifact(self, sha256: str) -> bool:
        """Says whether the server keeps these bytes already."""
        try:
            self._send("HEAD", f"/api/v1/artifacts/{sha256}")
        except ServiceError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    def upload(self, path: Path, sha256: str, sent: Callable[[int], None]) -> None:
        """Streams a file to the server.

        Args:
            path: File.
            sha256: Its hash; the server checks it.
            sent: Called with the bytes of each chunk.
        """
        length = str(path.stat().st_size)
        self._send(
            "PUT",
            f"/api/v1/artifacts/{sha256}",
            content=_chunks(path, sent),
            headers={"Content-Length": length, "Content-Type": "application/octet-stream"},
        )

    def post_bench_job(self, envelope: Mapping[str, Any]) -> bench.BenchJobInfo:
        """Posts a signed bench job; its files are uploaded before."""
        return self._post("/api/v1/bench/jobs", envelope, bench.BenchJobInfo)

    def bench_job(self, job: str) -> bench.BenchJobInfo:
        """Returns where a bench job stands."""
        return self._get(f"/api/v1/bench/jobs/{job}", bench.BenchJobInfo)

    def withdraw_bench_job(self, job: str) -> bench.BenchJobInfo:
        """Lets nobody begin a bench job any more."""
        return self._post(f"/api/v1/bench/jobs/{job}/withdraw", None, bench.BenchJobInfo)

    def _get(self, path: str, kind: type[T], params: Mapping[str, str] | None = None) -> T:
        answer = self._send("GET", path, params=dict(params or {}))
        return wire.decode(answer.content, kind, "server's answer")

    def _post(self, path: str, body: object | None, kind: type[T]) -> T:
        content = b"" if body is None else wire.encode(body)
        headers = {"Content-Type": "application/json"}
        answer = self._send("POST", path, content=content, headers=headers)
        return wire.decode(answer.content, kind, "server's answer")

    def _send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> httpx.Response:
        try:
            answer = self.http.request(
                method, path, content=content, headers=headers, params=params
            )
        except httpx.TransportError as error:
            raise ServiceError(
                f"server {self.server} does not answer ({type(error).__name__})",
                "check the address and that `kedge server run` is up",
            ) from None
        if answer.is_success:
            return answer
        raise refusal(self.server, answer)


def refusal(server: str, answer: httpx.Response) -> KedgeError:
    """Turns an error answer into the error that a person reads."""
    status = answer.status_code
    if status == httpx.codes.UNAUTHORIZED:
        return ServiceError(
            f"server {server} does not take this token", "check KEDGE_TOKEN_FILE", status=status
        )
    try:
        problem = wire.decode(answer.content, api.Problem, "error answer")
    except InputError:
        return ServiceError(f"server {server} answered {status}", status=status)
    if status == httpx.codes.INSUFFICIENT_STORAGE:
        return StorageError(problem.error, problem.mend)
    return ServiceError(problem.error, problem.mend, status=status)


def _chunks(path: Path, sent: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
            sent(len(chunk))
