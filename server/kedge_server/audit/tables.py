"""Table of the audit log."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class AuditRow(SQLModel, table=True):
    """One thing that happened."""

    __tablename__ = "audit"

    id: int | None = Field(default=None, primary_key=True)
    at: float
    actor: str
    action: str
    subject: str = Field(index=True)
    detail: str
    previous: str
    hash: str
