"""Table of TUF metadata, every version that was ever served."""

from __future__ import annotations

from sqlmodel import Field, SQLModel

from kedge_server.types import Long


class MetadataRow(SQLModel, table=True):
    """One version of one role's metadata."""

    __tablename__ = "metadata"

    role: str = Field(primary_key=True)
    version: int = Field(primary_key=True, sa_type=Long)
    body: bytes
