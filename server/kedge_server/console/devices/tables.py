"""Table of filters that people keep."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class SavedFilterRow(SQLModel, table=True):
    """A selector, and a state, under a name of its user's."""

    __tablename__ = "saved_filter"

    user: str = Field(primary_key=True, foreign_key="operator.name")
    name: str = Field(primary_key=True)
    selector: str
    state: str
