"""Alarms of guards, monitoring and retraining."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One schema up."""
    op.create_table(
        "alarms",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double()),
        sa.Column("bound", sa.Double()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("alarms_by_run", "alarms", ["run_id", "stage", "step"])
    op.create_index("alarms_by_at", "alarms", ["at"])


def downgrade() -> None:
    """One schema down."""
    op.drop_table("alarms")
