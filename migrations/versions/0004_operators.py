"""Users, API tokens, sessions, approvals; how boards are admitted, revoked and told from clones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _accounts()
    _devices()
    op.create_table(
        "approval",
        sa.Column("rollout", sa.String(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollout.id"]),
        sa.PrimaryKeyConstraint("rollout", "stage", "person"),
    )
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.add_column(sa.Column("created_by", sa.String(), nullable=False, server_default=""))
    # Until now there was one operator; the audit log says who made which.
    op.execute(
        "UPDATE rollout SET created_by = COALESCE((SELECT actor FROM audit WHERE audit.subject ="
        " rollout.id AND audit.action = 'rollout create' ORDER BY audit.id LIMIT 1), '')"
    )


def _accounts() -> None:
    op.create_table(
        "operator",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("roles", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("disabled", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "api_token",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("roles", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=True),
        sa.Column("last_used", sa.Float(), nullable=True),
        sa.Column("revoked", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["user"], ["operator.name"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_table(
        "login_session",
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["user"], ["operator.name"]),
        sa.PrimaryKeyConstraint("secret_hash"),
    )
    for table in ("api_token", "login_session"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.create_index(batch_op.f(f"ix_{table}_user"), ["user"], unique=False)


def _devices() -> None:
    with op.batch_alter_table("device", schema=None) as batch_op:
        # Boards that renew their token have no lasting one.
        batch_op.alter_column("token_hash", existing_type=sa.String(), nullable=True)
        batch_op.add_column(sa.Column("revoked", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("suspected_clone", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("suspicion", sa.String(), nullable=False, server_default=""))
    op.create_table(
        "dead_key",
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
    )
    op.create_table(
        "device_run",
        sa.Column("order", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("program", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["device.id"]),
        sa.PrimaryKeyConstraint("order"),
    )
    op.create_table(
        "used_nonce",
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("nonce"),
    )
    op.create_table(
        "pending_device",
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("enrolment", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("first_asked", sa.Float(), nullable=False),
        sa.Column("last_asked", sa.Float(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
    )
    op.create_table(
        "announced_key",
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("added", sa.Float(), nullable=False),
        sa.Column("added_by", sa.String(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint"),
    )
    for table, column in (("device_run", "device"), ("pending_device", "address")):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.create_index(batch_op.f(f"ix_{table}_{column}"), [column], unique=False)


def downgrade() -> None:
    for table, column in (("device_run", "device"), ("pending_device", "address")):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_index(batch_op.f(f"ix_{table}_{column}"))
    for table in ("announced_key", "pending_device", "used_nonce", "device_run", "dead_key"):
        op.drop_table(table)
    # The older server wants a token of every board: these enrol again.
    op.execute("UPDATE device SET token_hash = '-' || id WHERE token_hash IS NULL")
    # It knows no revocation either; nobody has such a token.
    op.execute("UPDATE device SET token_hash = '-' || id WHERE revoked IS NOT NULL")
    with op.batch_alter_table("device", schema=None) as batch_op:
        for each in ("suspicion", "suspected_clone", "revoked"):
            batch_op.drop_column(each)
        batch_op.alter_column("token_hash", existing_type=sa.String(), nullable=False)
    op.execute("UPDATE rollout SET state = 'stopped' WHERE state = 'proposed'")
    with op.batch_alter_table("rollout", schema=None) as batch_op:
        batch_op.drop_column("created_by")
    op.drop_table("approval")
    for table in ("login_session", "api_token"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.drop_index(batch_op.f(f"ix_{table}_user"))
        op.drop_table(table)
    op.drop_table("operator")
