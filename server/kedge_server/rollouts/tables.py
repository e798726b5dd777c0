"""Tables of rollouts, their stages, deployments and decisions."""

from __future__ import annotations

from sqlalchemy import Table
from sqlmodel import Field, SQLModel

from kedge_server.types import Long


class RolloutRow(SQLModel, table=True):
    """A rollout; ``spec`` is what the operator asked for."""

    __tablename__ = "rollout"

    order: int | None = Field(default=None, primary_key=True)
    id: str = Field(unique=True, index=True)
    model: str
    release: str
    recall: bool
    spec: str
    state: str = Field(index=True)
    reason: str
    created: float
    finished: float | None = None
    skipped: str = "{}"
    priority: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    created_by: str = Field(default="", sa_column_kwargs={"server_default": ""})


class StageRow(SQLModel, table=True):
    """A stage of a rollout; ``findings`` is JSON of what its verdict rests on, by class."""

    __tablename__ = "stage"

    rollout: str = Field(primary_key=True, foreign_key="rollout.id")
    index: int = Field(primary_key=True)
    percent: float | None = None
    state: str
    verdict: str = "undecided"
    reason: str = ""
    started: float | None = None
    finished: float | None = None
    approved_by: str = Field(default="", sa_column_kwargs={"server_default": ""})
    findings: str = Field(default="[]", sa_column_kwargs={"server_default": "[]"})


class ApprovalRow(SQLModel, table=True):
    """A person's yes to a stage, or to the start (-1), where a rollout asks for two."""

    __tablename__ = "approval"

    rollout: str = Field(primary_key=True, foreign_key="rollout.id")
    stage: int = Field(primary_key=True)
    person: str = Field(primary_key=True)
    at: float


class DeploymentRow(SQLModel, table=True):
    """A release on a device; who is in which stage is drawn once and stored.

    ``baseline_p95_ms`` is the board's frame time when the stage began, ``after_p95_ms`` the first
    one after its proof of health, or, of a board that was not reached, the first one after the
    stage began. Both are kept as they are then: a test that may stop at any time must not have its
    past rewritten.
    """

    __tablename__ = "deployment"

    id: str = Field(primary_key=True)
    rollout: str = Field(foreign_key="rollout.id", index=True)
    device: str = Field(foreign_key="device.id", index=True)
    stage: int
    model: str
    release: str
    phase: str = "idle"
    verdict: str
    assigned: float | None = None
    updated: float
    confirmed: float | None = None
    boot_id: str = ""
    seq: int = Field(default=-1, sa_type=Long)
    begun: float | None = None
    baseline_p95_ms: float | None = None
    after_p95_ms: float | None = None
    latency_p95_ms: float | None = None
    error_share: float | None = None
    agreement: float | None = None
    attempt: int = Field(default=1, sa_column_kwargs={"server_default": "1"})
    retry_of: str | None = None
    retried_by: str | None = None


#: For inserts by the thousand, which the ORM would make one object each for.
DEPLOYMENTS: Table = DeploymentRow.__table__  # type: ignore[attr-defined]


class DownloadRow(SQLModel, table=True):
    """A board that was admitted to fetch, until ``until`` at the latest."""

    __tablename__ = "download"

    device: str = Field(primary_key=True, foreign_key="device.id")
    rollout: str = Field(index=True)
    begun: float
    until: float


class DecisionRow(SQLModel, table=True):
    """A decision that moved a rollout; ``evidence`` is deflated JSON of all that it rests on."""

    __tablename__ = "decision"

    id: int | None = Field(default=None, primary_key=True)
    rollout: str = Field(foreign_key="rollout.id", index=True)
    stage: int
    at: float
    verdict: str
    reason: str
    evidence: bytes
