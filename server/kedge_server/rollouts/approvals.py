"""Two people's yes, where a rollout asks for it (``two_person``).

Before its first board is told anything, and again at each stage that asks: two people say yes, and
neither is who made the rollout. A person is a user: two tokens of one are one person.
"""

from __future__ import annotations

from sqlmodel import Session, col, delete, select

from kedge_server.accounts.principal import person
from kedge_server.audit.service import record
from kedge_server.errors import ForbiddenError
from kedge_server.rollouts.tables import ApprovalRow, RolloutRow

#: Stage of the yes that lets the first one begin.
START = -1
WANTED = 2


def people(session: Session, rollout: str, stage: int) -> tuple[str, ...]:
    """Returns who has said yes to what is asked, in order."""
    query = (
        select(ApprovalRow.person)
        .where(ApprovalRow.rollout == rollout, ApprovalRow.stage == stage)
        .order_by(col(ApprovalRow.at))
    )
    return tuple(session.exec(query))


def add(session: Session, rollout: RolloutRow, stage: int, who: str, now: float) -> tuple[str, ...]:
    """Notes a person's yes; saying it again changes nothing.

    Returns:
        Who has said yes by now.

    Raises:
        ForbiddenError: The person made the rollout.
    """
    if person(who) == person(rollout.created_by):
        raise ForbiddenError(
            f"{person(who)} made rollout {rollout.id}", "two other people say yes to it"
        )
    said = people(session, rollout.id, stage)
    if person(who) in said:
        return said
    session.add(ApprovalRow(rollout=rollout.id, stage=stage, person=person(who), at=now))
    session.flush()
    said = (*said, person(who))
    what = "start" if stage == START else f"stage {stage + 1}"
    record(session, who, "rollout approval", rollout.id, f"{what}: {len(said)} of {WANTED}")
    return said


def forget(session: Session, rollout: str, stage: int) -> None:
    """Throws the yes to a stage away: what was asked about is open again."""
    session.exec(
        delete(ApprovalRow).where(
            col(ApprovalRow.rollout) == rollout, col(ApprovalRow.stage) == stage
        )
    )
