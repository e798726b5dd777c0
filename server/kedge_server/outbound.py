"""The one way out of the server: to an address that was judged, and nowhere it points on to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

import anyio
import httpx

from kedge_server.egress import Endpoint, Network, choose, parse
from kedge_shared.errors import InputError, ServiceError

_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_IN_ALL_SECONDS = 30.0

Lookup = Callable[[str, int], Sequence[str]]


def lookup(host: str, port: int) -> list[str]:
    """Returns every address of a host.

    Raises:
        ServiceError: It has no name that can be looked up now.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ServiceError(f"{host} cannot be looked up") from None
    return [str(each[4][0]) for each in found]


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    allowed: Sequence[Network] = (),
    *,
    find: Lookup = lookup,
    transport: httpx.AsyncBaseTransport | None = None,
) -> int:
    """Posts to a URL that somebody named; returns the status of the answer.

    The name is looked up once and the connection made to the address that was judged, with the
    name kept for TLS and ``Host``. Redirections are not followed and proxies of the environment
    not used: either would lead elsewhere.

    Args:
        url: Whom to call.
        body: What to send.
        headers: Of the request; ``Host`` is set here.
        allowed: Networks that the settings name.
        find: Looks a host up.
        transport: Instead of the network, in tests.

    Raises:
        InputError: It is not to be called.
        ServiceError: It does not answer.
    """
    endpoint = parse(url)
    address = choose(endpoint, find(endpoint.host, endpoint.port), allowed)
    host = f"[{address}]" if address.version == 6 else str(address)
    pinned = f"{endpoint.scheme}://{host}:{endpoint.port}{endpoint.target}"

    async def send() -> int:
        # One that sends a byte now and then holds no timeout of httpx's, and would keep a thread.
        with anyio.fail_after(_IN_ALL_SECONDS):
            async with (
                httpx.AsyncClient(
                    timeout=_TIMEOUT, trust_env=False, transport=transport
                ) as client,
                client.stream(
                    "POST", pinned, content=body, headers={**headers, "Host": _host(endpoint)},
                    extensions={"sni_hostname": endpoint.host}, follow_redirects=False,
                ) as answer,
            ):  # fmt: skip
                # The body is not read: nobody asked for more, and it may have no end.
                return answer.status_code

    try:
        return anyio.run(send)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise ServiceError(f"{endpoint.host} does not answer ({type(error).__name__})") from None
    except ValueError:
        raise InputError("a header holds what no header may") from None


def _host(endpoint: Endpoint) -> str:
    name = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    usual = {"https": 443, "http": 80}[endpoint.scheme]
    return name if endpoint.port == usual else f"{name}:{endpoint.port}"
