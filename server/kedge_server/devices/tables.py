"""Tables of devices and what they said."""

from __future__ import annotations

from sqlalchemy import true
from sqlmodel import Field, SQLModel


class DeviceRow(SQLModel, table=True):
    """An enrolled board. JSON columns hold the dataclasses of kedge_shared.

    ``serves`` is false for a board that only measures: no rollout waits for it.
    """

    __tablename__ = "device"

    id: str = Field(primary_key=True)
    device_class: str = Field(index=True)
    key_id: str
    public_key: str
    token_hash: str = Field(unique=True)
    tags: str = "{}"
    facts: str
    enrolled: float
    last_seen: float | None = None
    release: str = ""
    engine: str = ""
    phase: str = "idle"
    latency_p95_ms: float | None = None
    frames: int = 0
    serves: bool = Field(default=True, sa_column_kwargs={"server_default": true()})


class EnrolmentTokenRow(SQLModel, table=True):
    """A one-time token, hashed."""

    __tablename__ = "enrolment_token"

    token_hash: str = Field(primary_key=True)
    expires: float
    used_by: str | None = None


class AssignmentRow(SQLModel, table=True):
    """What a device was last told; the counter outlives every restart and restore."""

    __tablename__ = "assignment"

    device: str = Field(primary_key=True, foreign_key="device.id")
    deployment: str
    intent: str
    counter: int
    issued: int
    expires: int
    envelope: str


class ReportRow(SQLModel, table=True):
    """A report that was taken, once."""

    __tablename__ = "report"

    device: str = Field(primary_key=True, foreign_key="device.id")
    boot_id: str = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    received: float
    deployment: str = Field(index=True)
    phase: str
    body: str
