"""Typed client of the operator API, for the command line, the builder and CI systems."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx

from kedge_shared import api, bench, wire
from kedge_shared.errors import InputError, KedgeError, ServiceError, StorageError
from kedge_shared.fleet import PAGE_MOST
from kedge_shared.servers import Target, resolve

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_CHUNK_BYTES = 1024 * 1024
#: Connection, then silence between two chunks, seconds.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)


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
        ca_file: Authorities (PEM) that vouch for the server, instead of the public ones.

    Raises:
        InputError: The address is none, or ``ca_file`` cannot be read.
    """

    def __init__(
        self,
        server: str,
        token: str,
        transport: httpx.BaseTransport | None = None,
        *,
        ca_file: Path | None = None,
    ) -> None:
        self.server = check_url(server)
        self.http = httpx.Client(
            base_url=self.server,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=_TIMEOUT,
            transport=transport,
            verify=True if ca_file is None else _vouched(ca_file),
        )

    @classmethod
    def open(cls, server: str = "", token_file: Path | None = None) -> Self:
        """Opens a client as the command line does: by argument, environment and configuration.

        Args:
            server: Address, or a name in the configuration; empty goes by ``KEDGE_SERVER`` and the
                configuration's default.
            token_file: With the operator token, else ``KEDGE_TOKEN_FILE``, ``KEDGE_TOKEN`` or the
                configuration's.

        Raises:
            InputError: There is no such server, or no token.
        """
        return cls.of(resolve(server, token_file))

    @classmethod
    def of(cls, target: Target) -> Self:
        """Opens a client to what :func:`kedge_shared.servers.resolve` found."""
        return cls(target.address, target.token, ca_file=target.ca_file)

    def __enter__(self) -> Self:
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
        """Returns the devices that match ``filters``, as :meth:`each_device` yields them."""
        return list(self.each_device(filters))

    def each_device(self, filters: Mapping[str, str] | None = None) -> Iterator[api.DeviceInfo]:
        """Yields devices by name, page by page, however many there are.

        Args:
            filters: ``device_class``, ``tag`` (``KEY:VALUE``), ``selector`` (RSQL).
        """
        after = ""
        while True:
            params = {**(filters or {}), "after": after, "most": PAGE_MOST}
            page = self._get("/api/v1/devices", list[api.DeviceInfo], params=params)
            yield from page
            if len(page) < PAGE_MOST:
                return
            after = page[-1].id

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

    def _get(self, path: str, kind: type[T], params: Mapping[str, Any] | None = None) -> T:
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
        params: dict[str, Any] | None = None,
    ) -> httpx.Response:
        try:
            answer = self.http.request(
                method, path, content=content, headers=headers, params=params
            )
        except httpx.TransportError as error:
            raise away(self.server, error) from None
        if answer.is_success:
            return answer
        raise refusal(self.server, answer)


def _vouched(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        # ssl's errors are OSErrors with a sentence about OpenSSL's source.
        said = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise InputError(f"ca_file {ca_file} cannot be read: {said}", "name a PEM file") from None


def away(server: str, error: httpx.TransportError) -> ServiceError:
    """Turns a connection that did not come about into the error that a person reads."""
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        # OpenSSL's word, the same in every version; httpx has no class of its own for it.
        return ServiceError(
            f"nobody vouches for the certificate of {server}",
            "name who does: `kedge config add NAME ADDRESS --ca-file FILE`, or SSL_CERT_FILE",
        )
    return ServiceError(
        f"server {server} does not answer ({type(error).__name__})",
        "check the address and that `kedge server run` is up",
    )


def refusal(server: str, answer: httpx.Response) -> KedgeError:
    """Turns an error answer into the error that a person reads."""
    status = answer.status_code
    if status == httpx.codes.UNAUTHORIZED:
        return ServiceError(
            f"server {server} does not take this token",
            "`kedge login NAME` makes a fresh one; KEDGE_TOKEN_FILE and KEDGE_TOKEN go before it",
            status=status,
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
