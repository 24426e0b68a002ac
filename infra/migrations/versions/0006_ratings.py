"""Ratings: what people said of two answers to the same question."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One schema up."""
    op.create_table(
        "ratings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("left_model", sa.Text(), nullable=False),
        sa.Column("left_digest", sa.Text(), nullable=False),
        sa.Column("left_text", sa.Text(), nullable=False),
        sa.Column("right_model", sa.Text(), nullable=False),
        sa.Column("right_digest", sa.Text(), nullable=False),
        sa.Column("right_text", sa.Text(), nullable=False),
        sa.Column("preferred", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ratings_by_models", "ratings", ["left_digest", "right_digest"])


def downgrade() -> None:
    """One schema down."""
    op.drop_table("ratings")
