"""Tables of telemetry: a queue of windows, and their sums by the hour and by the day."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class WindowRow(SQLModel, table=True):
    """Windows of boards, from their reports until the next roll-up; nothing here names a board."""

    __tablename__ = "telemetry_window"

    id: int | None = Field(default=None, primary_key=True)
    at: float
    device_class: str
    release: str
    body: str


class TelemetryRow(SQLModel, table=True):
    """All windows of a class and release in an hour or a day; ``body`` is a :class:`Sums`."""

    __tablename__ = "telemetry"

    level: str = Field(primary_key=True)
    start: int = Field(primary_key=True)
    device_class: str = Field(primary_key=True)
    release: str = Field(primary_key=True)
    body: str
