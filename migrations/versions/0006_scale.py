"""The lease, the changes that servers tell one another, and which reports were taken, in ranges.

Counters get 64 bits where an integer has 32.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_LONGER = {
    "assignment": ("counter", "issued", "expires"), "bench_job": ("expires",),
    "deployment": ("seq",), "device": ("frames",), "metadata": ("version",),
    "release": ("release_counter",), "report": ("seq",),
}  # fmt: skip
_BATCH = 1000


def upgrade() -> None:
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("fence", _LONG, nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "change",
        sa.Column("id", _LONG, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "report_ledger",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("taken", sa.String(), nullable=False),
        sa.Column("telemetry", _LONG, nullable=True),
        sa.Column("received", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"]),
        sa.PrimaryKeyConstraint("device", "boot_id"),
    )
    with op.batch_alter_table("report_ledger", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_report_ledger_received"), ["received"], unique=False)
    _enter()
    # Nobody asks for reports by deployment, and every report wrote into it.
    with op.batch_alter_table("report", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_report_deployment"))
    _alter(_LONG, sa.Integer())


def downgrade() -> None:
    _alter(sa.Integer(), _LONG)
    with op.batch_alter_table("report", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_report_deployment"), ["deployment"], unique=False)
    with op.batch_alter_table("report_ledger", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_report_ledger_received"))
    op.drop_table("report_ledger")
    op.drop_table("change")
    op.drop_table("lease")


def _alter(after: sa.types.TypeEngine[int], before: sa.types.TypeEngine[int]) -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, columns in _LONGER.items():
        for each in columns:
            op.alter_column(table, each, type_=after, existing_type=before)


def _enter() -> None:
    """Writes what was taken so far as ranges."""
    bind = op.get_bind()
    rows = bind.execute(
        sa.text("SELECT device, boot_id, seq, received FROM report ORDER BY device, boot_id, seq")
    )
    pages: list[dict[str, object]] = []
    at, ranges, last = ("", ""), [[0, -1]], 0.0
    for device, boot_id, seq, received in rows:
        if (device, boot_id) != at:
            _page(pages, at, ranges, last)
            at, ranges, last = (device, boot_id), [[seq, seq]], received
        elif seq == ranges[-1][1] + 1:
            ranges[-1][1] = seq
        else:
            ranges.append([seq, seq])
        last = max(last, received)
    _page(pages, at, ranges, last)
    table = sa.table("report_ledger", *map(sa.column, ("device", "boot_id", "taken", "received")))
    for start in range(0, len(pages), _BATCH):
        bind.execute(sa.insert(table), pages[start : start + _BATCH])


def _page(
    pages: list[dict[str, object]], at: tuple[str, str], ranges: list[list[int]], last: float
) -> None:
    if at == ("", ""):
        return
    taken = ",".join(str(first) if first == end else f"{first}-{end}" for first, end in ranges)
    pages.append({"device": at[0], "boot_id": at[1], "taken": taken, "received": last})
