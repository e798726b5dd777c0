"""What each role may do: the table is all there is. Pure.

docs/security.md shows it; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from types import MappingProxyType

from kedge_shared.accounts import Role


class Permission(str, Enum):
    """What a route asks for."""

    READ = "fleet.read"  # releases, artifacts, devices, rollouts
    PUBLISH = "releases.publish"  # uploads and signed metadata
    ENROL = "devices.enrol"  # enrolment tokens, the pending queue, keys of the factory
    MANAGE = "devices.manage"  # revoke a board, clear a suspicion
    RUN = "rollouts.run"  # plan, create, resume, retry
    STOP = "rollouts.stop"  # pause, halt, stop
    APPROVE = "rollouts.approve"
    BENCH = "bench.run"
    AUDIT = "audit.read"
    WATCH = "fleet.watch"  # events and telemetry, which are of the whole fleet
    HOOKS = "webhooks.manage"
    ACCOUNTS = "accounts.manage"  # users, and everybody's tokens
    SELF = "accounts.self"  # one's own password, tokens and session


_EVERYBODY = frozenset({Permission.READ, Permission.SELF, Permission.WATCH})
GRANTS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        "viewer": _EVERYBODY,
        "operator": _EVERYBODY | {
            Permission.PUBLISH, Permission.ENROL, Permission.MANAGE, Permission.RUN,
            Permission.STOP, Permission.BENCH,
        },
        "approver": _EVERYBODY | {Permission.APPROVE, Permission.STOP, Permission.AUDIT},
        "admin": frozenset(Permission),
    }
)  # fmt: skip

#: What can be done within a part of the fleet; the rest is the whole fleet's or nobody's.
SCOPED: frozenset[Permission] = frozenset(
    {Permission.READ, Permission.SELF, Permission.MANAGE, Permission.RUN, Permission.STOP,
     Permission.APPROVE}
)  # fmt: skip


def granted(roles: Iterable[Role]) -> frozenset[Permission]:
    """Returns what roles together may do."""
    return frozenset(each for role in roles for each in GRANTS[role])


def within(granted: frozenset[Permission], scopes: Iterable[str]) -> frozenset[Permission]:
    """Returns what of it may be done.

    Args:
        granted: What roles give.
        scopes: Selectors that confine user and token; empty ones do not.
    """
    return granted & SCOPED if any(scopes) else granted
