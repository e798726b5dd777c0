"""Alembic's environment: the server hands in its connection, the command line names a URL."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from kedge_server.tables import METADATA


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    url = context.config.get_main_option("sqlalchemy.url")
    if not url:
        raise SystemExit("set sqlalchemy.url in alembic.ini")
    with create_engine(url).begin() as opened:
        _run(opened)
