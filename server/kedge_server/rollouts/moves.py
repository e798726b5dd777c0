"""Every change of state is one compare-and-set: whoever was slower changes nothing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CursorResult, update
from sqlmodel import Session, col

from kedge_server.audit.service import record
from kedge_server.events import kinds
from kedge_server.events.service import emit
from kedge_server.replicas import changes
from kedge_server.rollouts import approvals
from kedge_server.rollouts.stages import RolloutEvent, StageEvent, advance, advance_stage
from kedge_server.rollouts.tables import RolloutRow, StageRow
from kedge_shared.api import RolloutState, StageState

_FINAL = frozenset({"completed", "halted", "stopped"})
_OVER = frozenset({"passed", "widened", "failed"})


def hold(session: Session, rollout: RolloutRow) -> bool:
    """Keeps a rollout's state as it was read until the transaction ends.

    What is decided from a state must be done in it: between the reading and the writing a person
    may have paused the rollout. Who holds it and changes its stages does both or neither.

    Returns:
        Whether it still is in that state; if not, ``rollout`` says by now in which it is.
    """
    seen = rollout.state
    held: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(RolloutRow)
        .where(col(RolloutRow.id) == rollout.id, col(RolloutRow.state) == seen)
        .values(state=seen)
        .execution_options(synchronize_session=False)
    )
    if held.rowcount != 1:
        session.refresh(rollout)
    return held.rowcount == 1


def move(
    session: Session, rollout: RolloutRow, event: RolloutEvent, reason: str, who: str, now: float
) -> bool:
    """Changes a rollout's state if the table allows it and nobody was faster.

    Returns:
        Whether it was changed.
    """
    seen: Any = rollout.state
    after: RolloutState | None = advance(seen, event)
    if after is None:
        return False
    session.flush()
    changed: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(RolloutRow)
        .where(col(RolloutRow.id) == rollout.id, col(RolloutRow.state) == seen)
        .values(state=after, reason=reason, finished=now if after in _FINAL else None)
    )
    session.refresh(rollout)
    if changed.rowcount != 1:
        return False
    changes.note(session, "rollout", rollout.id)
    record(session, who, f"rollout {event.value}", rollout.id, reason)
    data = {"model": rollout.model, "release": rollout.release, "state": after, "who": who,
            "reason": reason}  # fmt: skip
    emit(session, kinds.ROLLOUT[event], rollout.id, data, now)
    return True


def move_stage(
    session: Session, stage: StageRow, event: StageEvent, now: float, who: str = ""
) -> bool:
    """Changes a stage's state if the table allows it and nobody was faster.

    Returns:
        Whether it was changed.
    """
    seen: Any = stage.state
    after: StageState | None = advance_stage(seen, event)
    if after is None:
        return False
    values: dict[str, Any] = {"state": after}
    if event is StageEvent.BEGIN:
        values["started"] = now
    if after in _OVER:
        values["finished"] = now
    if event is StageEvent.APPROVE:
        values["approved_by"] = who
    session.flush()
    changed: CursorResult[Any] = session.execute(  # type: ignore[assignment]
        update(StageRow)
        .where(
            col(StageRow.rollout) == stage.rollout,
            col(StageRow.index) == stage.index,
            col(StageRow.state) == seen,
        )
        .values(**values)
    )
    session.refresh(stage)
    if changed.rowcount != 1:
        return False
    if event is StageEvent.REOPEN:
        approvals.forget(session, stage.rollout, stage.index)
    data = {"stage": stage.index, "state": after, "verdict": stage.verdict, "who": who,
            "reason": stage.reason}  # fmt: skip
    emit(session, kinds.GATE[event], stage.rollout, data, now)
    return True
