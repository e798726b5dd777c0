"""Events and webhooks as operators and their programs see them.

Webhooks follow the Standard Webhooks specification (https://www.standardwebhooks.com): headers
``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``, HMAC-SHA256 over
``ID.TIMESTAMP.BODY`` with a secret that is written ``whsec_BASE64``. Its libraries verify Kedge's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from kedge_shared.errors import TrustError

HEADER_ID = "webhook-id"
HEADER_TIMESTAMP = "webhook-timestamp"
HEADER_SIGNATURE = "webhook-signature"
SECRET_PREFIX = "whsec_"  # noqa: S105 - how a secret begins
#: Of an event that tells of nothing; it is sent to one webhook, to see whether it arrives.
TEST_KIND = "webhook.test"
#: Older or younger messages are taken for replayed ones.
TOLERANCE_SECONDS = 300

#: A kind, ``*``, or all kinds of a thing (``rollout.*``).
KIND_PATTERN = r"^(\*|[a-z]+\.(\*|[a-z_]+))\Z"
KindPattern = Annotated[str, Meta(pattern=KIND_PATTERN)]
DeliveryState = Literal["pending", "delivered", "given_up", "dropped"]

_DIGITS = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, kw_only=True)
class EventInfo:
    """Something that happened.

    Attributes:
        id: Grows; what ``Last-Event-ID`` names.
        at: Unix seconds.
        kind: ``rollout.halted``, ``gate.passed``, ``device.confirmed``, …
        subject: Rollout, device or release that it is about.
        data: What belongs to it.
    """

    id: int
    at: float
    kind: str
    subject: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WebhookRequest:
    """Where events are to be sent.

    Attributes:
        url: ``https://…``.
        kinds: Which.
    """

    url: Annotated[str, Meta(min_length=8, max_length=2000)]
    kinds: Annotated[tuple[KindPattern, ...], Meta(min_length=1, max_length=50)] = ("*",)


@dataclass(frozen=True, kw_only=True)
class WebhookInfo:
    """A webhook.

    Attributes:
        id: Identifier.
        url: Where events are sent.
        kinds: Which.
        created: Unix seconds.
        enabled: It is sent to.
        failures: Deliveries given up since the last that arrived.
        pending: Deliveries on their way.
        reason: Why it was disabled.
        secret: Signs what is sent; shown once, when the webhook is made.
    """

    id: str
    url: str
    kinds: tuple[str, ...]
    created: float
    enabled: bool
    failures: int
    pending: int = 0
    reason: str = ""
    secret: str = ""


@dataclass(frozen=True, kw_only=True)
class DeliveryInfo:
    """An event on its way to a webhook, or what became of it.

    Attributes:
        id: What the receiver is sent as ``webhook-id``; the same at every attempt.
        webhook: Whom it is for.
        event: Of which event.
        kind: Of that event.
        state: pending, delivered, given_up or dropped.
        created: Unix seconds.
        due: Unix seconds of the next attempt.
        attempts: So far.
        status: HTTP status of the last answer, or ``None``.
        reason: Why the last attempt failed.
        finished: Unix seconds, or ``None``.
    """

    id: str
    webhook: str
    event: int
    kind: str
    state: DeliveryState
    created: float
    due: float
    attempts: int
    status: int | None = None
    reason: str = ""
    finished: float | None = None


def matches(kind: str, patterns: tuple[str, ...]) -> bool:
    """Says whether a kind is among those that were asked for."""
    thing = kind.partition(".")[0]
    return any(each in {"*", kind, f"{thing}.*"} for each in patterns)


def sign(secret: str, name: str, timestamp: int, body: bytes) -> str:
    """Returns the signature header of a message."""
    return f"v1,{_mac(secret, name, str(timestamp), body)}"


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Checks a message that was received; for receivers written in Python.

    Args:
        secret: Of the webhook.
        headers: Of the request, names in lower case.
        body: As received, byte for byte.
        now: Unix seconds.

    Raises:
        TrustError: Not signed with the secret, or too old (``replay``).
    """
    timestamp = headers.get(HEADER_TIMESTAMP, "")
    expected = _mac(secret, headers.get(HEADER_ID, ""), timestamp, body)
    given = [each.partition(",") for each in headers.get(HEADER_SIGNATURE, "").split()]
    known = (mac for version, _, mac in given if version == "v1")
    if not any(hmac.compare_digest(each.encode(), expected.encode()) for each in known):
        raise TrustError("signature", "message is not signed with this webhook's secret")
    if not _DIGITS.fullmatch(timestamp) or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        raise TrustError("replay", "message is older than five minutes", "check the clocks")


def _mac(secret: str, name: str, timestamp: str, body: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise TrustError("secret", "that is no webhook's secret") from None
    signed = b".".join((name.encode(), timestamp.encode(), body))
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
