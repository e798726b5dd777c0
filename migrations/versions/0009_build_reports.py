"""What the builder reported of a build; the last frame times of a board."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("build", schema=None) as batch_op:
        batch_op.add_column(sa.Column("report", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("report_ledger", schema=None) as batch_op:
        batch_op.add_column(sa.Column("trace", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("report_ledger", schema=None) as batch_op:
        batch_op.drop_column("trace")
    with op.batch_alter_table("build", schema=None) as batch_op:
        batch_op.drop_column("report")
