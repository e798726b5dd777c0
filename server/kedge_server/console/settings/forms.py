"""What forms of the settings say, as the requests that the API takes. Pure."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from fastapi import Form

from kedge_server.errors import MalformedError
from kedge_shared import wire
from kedge_shared.accounts import PASSWORD_MOST
from kedge_shared.errors import InputError
from kedge_shared.rollouts import SELECTOR_MOST

T = TypeVar("T")
ROLES = ("viewer", "operator", "approver", "admin")
#: What each role is for; docs/security.md has the table.
ROLE_WORDS = {
    "viewer": "looks at everything, changes nothing",
    "operator": "publishes, enrols boards, starts and stops rollouts",
    "approver": "approves and stops rollouts, reads the audit log",
    "admin": "all of it, and users, webhooks",
}
_SEPARATOR = re.compile(r"[\s,]+")

Names = Annotated[list[str], Form(max_length=8)]
Short = Annotated[str, Form(max_length=64)]
Scope = Annotated[str, Form(max_length=SELECTOR_MOST)]
Secret = Annotated[str, Form(max_length=PASSWORD_MOST)]


def request_of(kind: type[T], **fields: Any) -> T:
    """Returns the request that a form means; the API's own rules hold.

    Raises:
        MalformedError: A field is not what it should be.
    """
    try:
        return wire.decode(wire.encode(fields), kind, "the form")
    except InputError as error:
        raise MalformedError(error.what, error.mend or "change it and send it again") from None


def roles_of(given: Iterable[str]) -> list[str]:
    """Returns the roles that were ticked.

    Raises:
        MalformedError: None was.
    """
    found = [each for each in ROLES if each in set(given)]
    if not found:
        raise MalformedError("no role is ticked", "tick one at least")
    return found


def twice(password: str, again: str) -> str:
    """Returns a password that was typed twice.

    Raises:
        MalformedError: It was not the same.
    """
    if not hmac.compare_digest(password.encode(), again.encode()):
        raise MalformedError("the two passwords differ", "type both again")
    return password


def kinds_of(text: str) -> list[str]:
    """Returns kinds of events, however they are parted; nothing is all of them."""
    return [each for each in _SEPARATOR.split(text) if each] or ["*"]
