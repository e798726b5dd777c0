"""A release that its owners took back: what that means for rollouts."""

from __future__ import annotations

import time
from collections.abc import Container

from sqlmodel import Session, col, select

from kedge_server.errors import ConflictError
from kedge_server.releases.tables import BuildRow
from kedge_server.rollouts.moves import move
from kedge_server.rollouts.stages import RolloutEvent
from kedge_server.rollouts.tables import RolloutRow


def halt_withdrawn(session: Session, listed: Container[str], who: str) -> None:
    """Halts every rollout of a release of which no build is listed any more.

    Boards then follow the newest rollout that stands, as after any halt.
    """
    standing: dict[tuple[str, str], bool] = {}
    for build in session.exec(select(BuildRow)):
        key = (build.model, build.release)
        standing[key] = standing.get(key, False) or build.manifest_path in listed
    query = select(RolloutRow).where(col(RolloutRow.state) != "halted")
    for rollout in session.exec(query).all():
        if not standing.get((rollout.model, rollout.release), True):
            reason = f"{rollout.model} {rollout.release} was taken back by its owners"
            move(session, rollout, RolloutEvent.HALT, reason, who, time.time())


def require_listed(session: Session, listed: Container[str], model: str, release: str) -> None:
    """Makes sure that boards would accept a release.

    Raises:
        ConflictError: Its owners took it back.
    """
    query = select(BuildRow).where(BuildRow.model == model, BuildRow.release == release)
    found = session.exec(query).all()
    if found and not any(each.manifest_path in listed for each in found):
        raise ConflictError(
            f"{model} {release} was taken back by its owners", "`kedge publish` another release"
        )
