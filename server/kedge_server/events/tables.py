"""Table of events, the newest of them."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class EventRow(SQLModel, table=True):
    """Something that happened; ids grow in the order in which it was committed."""

    __tablename__ = "event"
    # A number is never given twice, also when the newest rows are gone.
    __table_args__ = {"sqlite_autoincrement": True}

    id: int | None = Field(default=None, primary_key=True)
    at: float
    kind: str
    subject: str
    data: str
