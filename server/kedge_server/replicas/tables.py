"""Tables of the lease and of changes."""

from __future__ import annotations

from sqlmodel import Field, SQLModel

from kedge_server.types import Long


class LeaseRow(SQLModel, table=True):
    """Who leads. ``fence`` grows with every holder, ``expires`` is by the database's clock."""

    __tablename__ = "lease"

    name: str = Field(primary_key=True)
    holder: str = ""
    fence: int = Field(default=0, sa_type=Long)
    expires: float = 0.0


class ChangeRow(SQLModel, table=True):
    """Something changed that answers in the servers' memory are made of.

    Ids are in the order of commits: whoever has read one has missed none before it.
    """

    __tablename__ = "change"

    id: int | None = Field(default=None, primary_key=True, sa_type=Long)
    kind: str
    subject: str
