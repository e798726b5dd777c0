"""Bench jobs, and devices that only measure."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "bench_job",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("device_class", sa.String(), nullable=False),
        sa.Column("envelope", sa.String(), nullable=False),
        sa.Column("posted", sa.Float(), nullable=False),
        sa.Column("expires", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("result", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("bench_job", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_bench_job_device_class"), ["device_class"], unique=False
        )
    with op.batch_alter_table("device", schema=None) as batch_op:
        # Every board enrolled so far serves.
        batch_op.add_column(
            sa.Column("serves", sa.Boolean(), nullable=False, server_default=sa.true())
        )


def downgrade() -> None:
    with op.batch_alter_table("device", schema=None) as batch_op:
        batch_op.drop_column("serves")
    with op.batch_alter_table("bench_job", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_bench_job_device_class"))
    op.drop_table("bench_job")
