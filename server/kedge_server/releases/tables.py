"""Tables of releases and builds."""

from __future__ import annotations

from sqlmodel import Field, SQLModel

from kedge_server.types import Long


class ReleaseRow(SQLModel, table=True):
    """One version of one model."""

    __tablename__ = "release"

    model: str = Field(primary_key=True)
    release: str = Field(primary_key=True)
    release_counter: int = Field(sa_type=Long)
    published: float


class BuildRow(SQLModel, table=True):
    """A build of a release for one device class.

    ``manifest`` is its text; ``provenance`` the hash of the signed statement of where it came from,
    ``report`` that of the published part of the builder's report; empty if there is none.
    """

    __tablename__ = "build"

    model: str = Field(primary_key=True)
    release: str = Field(primary_key=True)
    device_class: str = Field(primary_key=True)
    manifest_path: str
    manifest_sha256: str
    manifest_length: int
    manifest: bytes
    provenance: str = Field(default="", sa_column_kwargs={"server_default": ""})
    report: str = Field(default="", sa_column_kwargs={"server_default": ""})
