"""Table of bench jobs."""

from __future__ import annotations

from sqlmodel import Field, SQLModel

from kedge_server.types import Long


class BenchJobRow(SQLModel, table=True):
    """A signed job; ``envelope`` and ``result`` are its and its answer's text.

    Where it stands is not stored: it follows from these columns and the time (standing.py).
    """

    __tablename__ = "bench_job"

    id: str = Field(primary_key=True)
    device_class: str = Field(index=True)
    envelope: str
    posted: float
    expires: int = Field(sa_type=Long)
    device: str = ""
    lease_until: float = 0.0
    attempts: int = 0
    result: str = ""
