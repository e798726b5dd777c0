"""Table of attestations."""

from __future__ import annotations

from sqlmodel import Field, SQLModel

from kedge_server.types import Long


class AttestationRow(SQLModel, table=True):
    """What came with one report, believed or not.

    ``key`` is the public key that counted when it came: a board's may be rotated later.
    """

    __tablename__ = "attestation"

    device: str = Field(primary_key=True, foreign_key="device.id")
    boot_id: str = Field(primary_key=True)
    seq: int = Field(primary_key=True, sa_type=Long)
    received: float = Field(index=True)
    event: str
    release: str
    engine: str
    manifest: str = ""
    published: bool = False
    refused: str = ""
    key: str
    envelope: str
