"""Approvals know the run of Prefect's that is suspended until their answer."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One schema up."""
    op.add_column("approvals", sa.Column("flow_run", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """One schema down."""
    op.drop_column("approvals", "flow_run")
