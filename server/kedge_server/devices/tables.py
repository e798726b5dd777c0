"""Tables of devices and what they said."""

from __future__ import annotations

from sqlalchemy import true
from sqlmodel import Field, SQLModel

from kedge_server.types import Long


class DeviceRow(SQLModel, table=True):
    """An enrolled board. JSON columns hold the dataclasses of kedge_shared.

    ``serves`` is false for a board that only measures: no rollout waits for it. ``token_hash`` is
    of a lasting token; boards that renew theirs have none.
    """

    __tablename__ = "device"

    id: str = Field(primary_key=True)
    device_class: str = Field(index=True)
    key_id: str
    public_key: str
    token_hash: str | None = Field(default=None, unique=True)
    tags: str = "{}"
    facts: str
    enrolled: float
    last_seen: float | None = None
    release: str = ""
    engine: str = ""
    phase: str = "idle"
    latency_p95_ms: float | None = None
    frames: int = Field(default=0, sa_type=Long)
    serves: bool = Field(default=True, sa_column_kwargs={"server_default": true()})
    revoked: float | None = None
    suspected_clone: float | None = None
    suspicion: str = Field(default="", sa_column_kwargs={"server_default": ""})


class DeadKeyRow(SQLModel, table=True):
    """A key that is never taken again: of a revoked board, or one that was changed for another."""

    __tablename__ = "dead_key"

    fingerprint: str = Field(primary_key=True)
    device: str
    at: float
    why: str


class DeviceRunRow(SQLModel, table=True):
    """A start of a board's program that asked for access; ``order`` says which came later."""

    __tablename__ = "device_run"

    order: int | None = Field(default=None, primary_key=True)
    device: str = Field(foreign_key="device.id", index=True)
    program: str
    run: str


class UsedNonceRow(SQLModel, table=True):
    """A nonce that a board has used; kept until it would not be taken anyway."""

    __tablename__ = "used_nonce"

    nonce: str = Field(primary_key=True)
    expires: float


class PendingDeviceRow(SQLModel, table=True):
    """A board that asked without a token; one row a key."""

    __tablename__ = "pending_device"

    fingerprint: str = Field(primary_key=True)
    name: str
    enrolment: str
    address: str = Field(index=True)
    first_asked: float
    last_asked: float
    state: str = "waiting"


class AnnouncedKeyRow(SQLModel, table=True):
    """A key whose board is taken in without being asked about."""

    __tablename__ = "announced_key"

    fingerprint: str = Field(primary_key=True)
    note: str
    added: float
    added_by: str
    device: str = ""


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
    counter: int = Field(sa_type=Long)
    issued: int = Field(sa_type=Long)
    expires: int = Field(sa_type=Long)
    envelope: str


class LedgerRow(SQLModel, table=True):
    """Which reports of one start of a board were taken, ``"0-288,290"``.

    ``telemetry`` is the number of the newest window of telemetry, the only one that is kept whole;
    ``trace`` holds the frame times of the last ones (:mod:`kedge_server.devices.trace`).
    """

    __tablename__ = "report_ledger"

    device: str = Field(primary_key=True, foreign_key="device.id")
    boot_id: str = Field(primary_key=True)
    taken: str
    telemetry: int | None = Field(default=None, sa_type=Long)
    trace: str = Field(default="", sa_column_kwargs={"server_default": ""})
    received: float = Field(index=True)


class ReportRow(SQLModel, table=True):
    """A report that was taken: those of phases, and the newest window of telemetry."""

    __tablename__ = "report"

    device: str = Field(primary_key=True, foreign_key="device.id")
    boot_id: str = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=Long)
    received: float
    deployment: str
    phase: str
    body: str
