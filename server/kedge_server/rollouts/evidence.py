"""Decisions with all that they rest on: stored when one moves a rollout, judged anew on request."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from sqlmodel import Session, col, select

from kedge_server.rollouts.decision import Decision
from kedge_server.rollouts.facts import GateFacts
from kedge_server.rollouts.gates import judge
from kedge_server.rollouts.tables import DecisionRow
from kedge_shared import wire
from kedge_shared.api import DecisionInfo
from kedge_shared.errors import InputError
from kedge_shared.rollouts import GateSpec

#: A board's facts are some 400 bytes of JSON that say nearly the same as its neighbour's.
_LEVEL = 6


@dataclass(frozen=True)
class Evidence:
    """All that a decision rests on: the same again must come of it.

    Attributes:
        gate: What was asked.
        facts: What was known.
        now: Unix seconds.
        decision: What was said.
    """

    gate: GateSpec
    facts: GateFacts
    now: float
    decision: Decision


def keep(session: Session, rollout: str, stage: int, evidence: Evidence) -> None:
    """Stores a decision in the transaction of what it changes."""
    said = evidence.decision
    session.add(
        DecisionRow(
            rollout=rollout, stage=stage, at=evidence.now, verdict=said.verdict,
            reason=said.reason, evidence=zlib.compress(wire.encode(evidence), _LEVEL),
        )
    )  # fmt: skip


def read(row: DecisionRow) -> Evidence:
    """Returns what a stored decision rests on.

    Raises:
        InputError: It was damaged.
    """
    what = f"evidence of decision {row.id}"
    try:
        return wire.decode(zlib.decompress(row.evidence), Evidence, what)
    except zlib.error as error:
        raise InputError(f"{what} cannot be read: {error}") from None


def again(evidence: Evidence) -> Decision:
    """Judges stored evidence anew. Pure."""
    return judge(evidence.gate, evidence.facts, evidence.now)


def alike(one: Decision, other: Decision) -> bool:
    """Says whether two decisions are the same, but for the last digits of what was computed.

    Logarithms differ in them from one processor or version of a library to the next.
    """
    return _close(astuple(one), astuple(other))


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-9)
    return bool(one == other)


def decisions(session: Session, rollout: str) -> Sequence[DecisionRow]:
    """Returns a rollout's stored decisions, oldest first."""
    query = select(DecisionRow).where(DecisionRow.rollout == rollout).order_by(col(DecisionRow.id))
    return list(session.exec(query))


def replay(session: Session, rollout: str) -> list[DecisionInfo]:
    """Judges every stored decision of a rollout again.

    Raises:
        InputError: One was damaged.
    """
    return [_info(row, read(row)) for row in decisions(session, rollout)]


def _info(row: DecisionRow, evidence: Evidence) -> DecisionInfo:
    found = again(evidence)
    return DecisionInfo(
        id=row.id or 0, stage=row.stage, at=row.at, verdict=evidence.decision.verdict,
        reason=row.reason, devices=len(evidence.facts.cohort), again=found.verdict,
        again_reason=found.reason,
        same=(found.verdict, found.reason) == (row.verdict, row.reason)
        and alike(found, evidence.decision),
    )  # fmt: skip
