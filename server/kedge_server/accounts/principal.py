"""Who asks, and which boards that concerns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kedge_server.accounts.roles import Permission
from kedge_server.devices.selectors import Both, Facts, Selector, matches, parse, write
from kedge_shared.accounts import Role


@dataclass(frozen=True)
class Reach:
    """The boards that somebody sees and acts on: those that match every selector.

    Attributes:
        selectors: None is the whole fleet.
    """

    selectors: tuple[Selector, ...] = ()

    @classmethod
    def of(cls, *scopes: str) -> Reach:
        """Reads selectors; empty ones confine nothing."""
        return cls(tuple(parse(each) for each in scopes if each))

    @property
    def whole(self) -> bool:
        """It is the whole fleet."""
        return not self.selectors

    def includes(self, facts: Facts) -> bool:
        """Says whether a board is within."""
        return all(matches(each, facts) for each in self.selectors)

    def narrowed(self, selector: str) -> str:
        """Returns a selector's boards that are within, as a selector."""
        parts: Iterable[Selector] = self.selectors
        if selector:
            parts = (*parts, parse(selector))
        parts = tuple(parts)
        if len(parts) < 2:
            return write(parts[0]) if parts else ""
        return write(Both("and", parts))


WHOLE_FLEET = Reach()


@dataclass(frozen=True)
class Principal:
    """Who asks.

    Attributes:
        user: The person.
        token: Name of the API token that is used; empty in a session.
        roles: Of the token, or of the user.
        granted: What user and token give together.
        permissions: What of it may be done within the scopes.
        scopes: Selectors of user and token; empty ones confine nothing.
        csrf: Of the session; empty with a token.
        expires: Unix seconds, or ``None``.
    """

    user: str
    token: str
    roles: tuple[Role, ...]
    granted: frozenset[Permission]
    permissions: frozenset[Permission]
    scopes: tuple[str, ...] = ()
    csrf: str = ""
    expires: float | None = None

    def __str__(self) -> str:
        """What the audit log calls it."""
        return f"{self.user}/{self.token}" if self.token else self.user

    @property
    def reach(self) -> Reach:
        """Which boards it concerns."""
        return Reach.of(*self.scopes)


def person(actor: str) -> str:
    """Returns the person behind what the audit log calls somebody."""
    return actor.partition("/")[0]
