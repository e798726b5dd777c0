"""Tables of rollouts, their stages and deployments."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


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


class StageRow(SQLModel, table=True):
    """A stage of a rollout."""

    __tablename__ = "stage"

    rollout: str = Field(primary_key=True, foreign_key="rollout.id")
    index: int = Field(primary_key=True)
    percent: float
    state: str
    verdict: str = "undecided"
    reason: str = ""
    started: float | None = None
    finished: float | None = None


class DeploymentRow(SQLModel, table=True):
    """A release on a device; membership is fixed when the rollout is made."""

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
    seq: int = -1
