"""What pipelines and their stages are called. Light: a finished run is found with this alone."""

from services.errors import RecipeError

STAGES = (
    "zero", "cold-start", "dev1", "dev2", "sft-set", "dev3", "preference", "r1",
    "distill", "on-policy", "student-rl", "evaluate", "gate", "export",
)  # fmt: skip
"""Stages in their order; the words of ``--until`` and ``--from``. Recipes may leave some out."""


def require_stages(*names: str | None) -> None:
    """Refuse names that no stage has; None is no name."""
    for name in filter(None, names):
        if name not in STAGES:
            raise RecipeError(f"there is no stage {name!r}", f"Choose one of {', '.join(STAGES)}")
