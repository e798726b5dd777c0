"""Where the server may call by itself (webhooks). Pure: a URL and addresses in, a decision out.

An operator, or whoever has one's token, names the URL; the server stands where that person does
not: beside databases, consoles and a cloud's metadata service (server-side request forgery). So
nothing is called that the internet could not call, unless the settings name the network. The name
is looked up once, every address of it is judged here, and the connection goes to one that was
judged (kedge_server.outbound): a name that points elsewhere a moment later gains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from kedge_shared.errors import InputError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_LIMIT = 2000
_PORTS = {"https": 443, "http": 80}
#: Addresses that carry an IPv4 address to a translator: what counts is where that leads (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Endpoint:
    """Whom a URL names.

    Attributes:
        scheme: ``https`` or ``http``.
        host: Name or address, without brackets.
        port: TCP port.
        target: Path and query.
    """

    scheme: str
    host: str
    port: int
    target: str


def parse(url: str) -> Endpoint:
    """Takes a URL apart.

    Raises:
        InputError: Not http(s), without a host, with a user or password, or with characters that
            no URL has.
    """
    if len(url) > URL_LIMIT or not all("!" <= each <= "~" for each in url):
        raise InputError("the URL is too long or holds other than printable ASCII")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InputError(f"{url!r} is no URL") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InputError(f"{url!r} is no web address", "write https://HOST[:PORT]/PATH")
    if "@" in parts.netloc or "\\" in url:
        raise InputError("the URL names a user", "a secret goes into the webhook's own field")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Endpoint(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], target)


def choose(
    endpoint: Endpoint, addresses: Sequence[str], allowed: Sequence[Network] = ()
) -> Address:
    """Returns the address to connect to.

    Args:
        endpoint: From :func:`parse`.
        addresses: All that its host stands for.
        allowed: Networks that the settings name, although nobody outside could call them.

    Raises:
        InputError: There is no address, one of them is not to be called, or it would be called in
            the clear.
    """
    if not addresses:
        raise InputError(f"{endpoint.host} has no address")
    found = [_plain(each) for each in addresses]
    for each in found:
        if not may_call(each, allowed):
            raise InputError(
                f"{endpoint.host} is {each}, which is not to be called from here",
                "KEDGE_SERVER_EGRESS_NETWORKS names networks that may be",
            )
    if endpoint.scheme == "http" and not all(_named(each, allowed) for each in found):
        raise InputError(f"{endpoint.host} would be called in the clear", "use https://")
    return found[0]


def may_call(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Says whether an address may be called: anybody's on the internet, or in ``allowed``."""
    return _named(address, allowed) or (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not _tunnelled(address)
    )


def _named(address: Address, allowed: Sequence[Network]) -> bool:
    return any(address in each for each in allowed)


def _plain(text: str) -> Address:
    """Returns an address; IPv4 that is written as IPv6 becomes what it is."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        raise InputError(f"{text!r} is no address") from None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return found.ipv4_mapped
        if found in _NAT64:
            return IPv4Address(int(found) & 0xFFFFFFFF)
    return found


def _tunnelled(address: Address) -> bool:
    """Says whether an address leads through 6to4 or Teredo to some IPv4 address."""
    return isinstance(address, IPv6Address) and (
        address.sixtofour is not None or address.teredo is not None
    )
