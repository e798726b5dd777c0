"""Where a bench job stands, from what is stored of it. Pure."""

from __future__ import annotations

from kedge_shared.bench import BenchState

#: Boards that may fall silent over a job before it is given up: it may be what silences them.
MAX_ATTEMPTS = 3


def standing(
    *, answered: bool, expires: float, lease_until: float, attempts: int, now: float
) -> BenchState:
    """Says where a job stands.

    Args:
        answered: A result is stored.
        expires: Unix seconds; nobody begins it after that.
        lease_until: Unix seconds; who took it holds it until then.
        attempts: How often it was taken.
        now: Unix seconds.
    """
    if answered:
        return "done"
    if lease_until > now:
        return "running"
    if expires <= now:
        return "expired"
    return "lost" if attempts >= MAX_ATTEMPTS else "waiting"
