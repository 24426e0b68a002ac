"""Indices for pages that look through a million completions."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDICES = {
    "rollouts_by_problem": ("rollouts", ["stage_id", "problem_id", "step"]),
    "rollouts_by_length": ("rollouts", ["stage_id", "length_tokens", "step"]),
    "rollouts_by_total": ("rollouts", ["stage_id", "total", "step"]),
    "rollouts_by_verdict": ("rollouts", ["stage_id", "verdict", "step"]),
    "evaluation_samples_by_problem": (
        "evaluation_samples",
        ["evaluation_id", "problem_id", "sample"],
    ),
}


def upgrade() -> None:
    """One schema up."""
    op.drop_index("rollouts_by_problem", "rollouts")
    for name, (table, columns) in INDICES.items():
        op.create_index(name, table, columns)


def downgrade() -> None:
    """One schema down."""
    for name, (table, _) in INDICES.items():
        op.drop_index(name, table)
    op.create_index("rollouts_by_problem", "rollouts", ["problem_id", "stage_id", "step"])
