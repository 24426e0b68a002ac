"""Held-out problems that a stage answers again and again while it trains."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """One schema up."""
    op.create_table(
        "held_out_samples",
        sa.Column("stage_id", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("problem_id", sa.Integer(), nullable=False),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("total", sa.Double()),
        sa.Column("accuracy", sa.Double()),
        sa.Column("format", sa.Double()),
        sa.Column("language", sa.Double()),
        sa.Column("preference", sa.Double()),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("length_tokens", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("language_share", sa.Double(), nullable=False),
        sa.Column("reflective_words", sa.Integer(), nullable=False),
        sa.Column("gave_up", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("repeated_attempts", sa.Integer(), nullable=False),
        sa.Column("trace_steps", sa.Integer(), nullable=False),
        sa.Column("slips", sa.Integer(), nullable=False),
        sa.Column("false_claim", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["stage_id"], ["stages.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["problem_id"], ["problems.id"]),
        sa.PrimaryKeyConstraint("stage_id", "step", "row"),
    )
    op.create_index(
        "held_out_samples_by_problem", "held_out_samples", ["stage_id", "problem_id", "step"]
    )


def downgrade() -> None:
    """One schema down."""
    op.drop_table("held_out_samples")
