"""Decisions with their evidence, what gates measure, approvals, priorities and retries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MEASURES = ("begun", "baseline_p95_ms", "after_p95_ms", "latency_p95_ms", "error_share",
             "agreement")  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "decision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rollout", sa.String(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("evidence", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollout.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("decision", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_decision_rollout"), ["rollout"], unique=False)
    with op.batch_alter_table("deployment", schema=None) as batch_op:
        for each in _MEASURES:
            batch_op.add_column(sa.Column(each, sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("retry_of", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("retried_by", sa.String(), nullable=True))
    # Who had spoken by now had taken its assignment up; when exactly was not kept.
    op.execute("UPDATE deployment SET begun = assigned WHERE assigned IS NOT NULL AND seq >= 0")
    with op.batch_alter_table("stage", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column("approved_by", sa.String(), nullable=False, server_default="")
        )
        batch_op.alter_column("percent", existing_type=sa.Float(), nullable=True)
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.drop_column("priority")
    # Stages by count or selector have no percentage; the older server knows nothing else.
    op.execute("UPDATE stage SET percent = 100 WHERE percent IS NULL")
    with op.batch_alter_table("stage", schema=None) as batch_op:
        batch_op.alter_column("percent", existing_type=sa.Float(), nullable=False)
        batch_op.drop_column("approved_by")
    with op.batch_alter_table("deployment", schema=None) as batch_op:
        for each in ("retried_by", "retry_of", "attempt", *_MEASURES):
            batch_op.drop_column(each)
    with op.batch_alter_table("decision", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_decision_rollout"))
    op.drop_table("decision")
