"""The one function by which a webhook is called: to an address that was judged, and no further."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

import httpx

from kedge_shared.errors import InputError, ServiceError

Networks = Sequence[IPv4Network | IPv6Network]
Lookup = Callable[[str, int], Sequence[str]]
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_PORTS = {"https": 443, "http": 80}


def check(url: str) -> SplitResult:
    """Takes a URL apart.

    Raises:
        InputError: It is none that a webhook may have.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputError(f"{url!r} is no URL") from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or not url.isascii():
        raise InputError(f"{url!r} is no web address", "write https://HOST[:PORT]/PATH")
    if "@" in parts.netloc or "\\" in url:
        raise InputError("the URL names a user")
    return parts


def lookup(host: str, port: int) -> list[str]:
    """Returns every address of a host.

    Raises:
        ServiceError: It cannot be looked up now.
    """
    try:
        return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        raise ServiceError(f"{host} cannot be looked up") from None


def choose(scheme: str, host: str, addresses: Sequence[str], allowed: Networks) -> str:
    """Returns the address to connect to. Pure.

    Raises:
        InputError: One of them is not to be called: not everybody's on the internet, and in no
            network that the settings name; or it would be called in the clear.
    """
    found = [ip_address(each.partition("%")[0]) for each in addresses]
    for each in found:
        plain = each.ipv4_mapped or each if isinstance(each, IPv6Address) else each
        if any(plain in network for network in allowed):
            continue
        tunnel = isinstance(plain, IPv6Address) and (plain.sixtofour or plain.teredo)
        if not plain.is_global or plain.is_multicast or plain.is_reserved or tunnel:
            raise InputError(
                f"{host} is {plain}, which is not to be called from here",
                "KEDGE_SERVER_EGRESS_NETWORKS names networks that may be",
            )
        if scheme == "http":
            raise InputError(f"{host} would be called in the clear", "use https://")
    if not found:
        raise InputError(f"{host} has no address")
    return f"[{found[0]}]" if isinstance(found[0], IPv6Address) else str(found[0])


def post(
    url: str, body: bytes, headers: Mapping[str, str], allowed: Networks = (), *,
    find: Lookup = lookup,
) -> int:  # fmt: skip
    """Posts to a URL that somebody named; returns the status of the answer.

    The name is looked up once and the connection made to the address that was judged, with the
    name kept for TLS and ``Host``. Redirections are not followed, proxies not used, the answer's
    body is not read.

    Raises:
        InputError: It is not to be called.
        ServiceError: It does not answer.
    """
    parts = check(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    address = choose(parts.scheme, host, find(host, port), allowed)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with (
            httpx.Client(timeout=_TIMEOUT, trust_env=False) as client,
            client.stream(
                "POST", f"{parts.scheme}://{address}:{port}{target}", content=body,
                headers={**headers, "Host": parts.netloc},
                extensions={"sni_hostname": host}, follow_redirects=False,
            ) as answer,
        ):  # fmt: skip
            return answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(f"{host} does not answer ({type(error).__name__})") from None
