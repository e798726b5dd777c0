"""What a gate's verdict rests on, kept with its stage; filters that people keep."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("stage", schema=None) as batch_op:
        batch_op.add_column(sa.Column("findings", sa.String(), nullable=False, server_default="[]"))
    op.create_table(
        "saved_filter",
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("selector", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["user"], ["operator.name"]),
        sa.PrimaryKeyConstraint("user", "name"),
    )


def downgrade() -> None:
    op.drop_table("saved_filter")
    with op.batch_alter_table("stage", schema=None) as batch_op:
        batch_op.drop_column("findings")
