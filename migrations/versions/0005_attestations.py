"""What boards sign that they run, and where builds came from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LONG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "attestation",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("boot_id", sa.String(), nullable=False),
        sa.Column("seq", _LONG, nullable=False),
        sa.Column("received", sa.Float(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("release", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("manifest", sa.String(), nullable=False),
        sa.Column("published", sa.Boolean(), nullable=False),
        sa.Column("refused", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("envelope", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"]),
        sa.PrimaryKeyConstraint("device", "boot_id", "seq"),
    )
    with op.batch_alter_table("attestation", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_attestation_received"), ["received"], unique=False)
    with op.batch_alter_table("build", schema=None) as batch_op:
        batch_op.add_column(sa.Column("provenance", sa.String(), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("build", schema=None) as batch_op:
        batch_op.drop_column("provenance")
    with op.batch_alter_table("attestation", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_attestation_received"))
    op.drop_table("attestation")
