"""What pipelines and their stages are called. Light: a finished run is found with this alone."""

from services.config import Recipe
from services.errors import RecipeError
from services.recipes import recipe_digest

STAGES = (
    "zero", "cold-start", "dev1", "dev2", "sft-set", "dev3", "preference", "r1",
    "distill", "on-policy", "student-rl", "evaluate", "gate", "export",
)  # fmt: skip
"""Stages in their order; the words of ``--until`` and ``--from``. Recipes may leave some out."""


def run_id_of(recipe: Recipe) -> str:
    """The name of a recipe's pipeline; the same recipe and seed always have the same."""
    return f"{recipe.name}-s{recipe.seed}-{recipe_digest(recipe)[:8]}"


def require_stages(*names: str | None) -> None:
    """Refuse names that no stage has; None is no name."""
    for name in filter(None, names):
        if name not in STAGES:
            raise RecipeError(f"there is no stage {name!r}", f"Choose one of {', '.join(STAGES)}")
