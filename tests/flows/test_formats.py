"""The format of a recipe reaches prompts and rewards, and a base that misses it is not trained."""

from pathlib import Path

import pytest
from sqlalchemy import text

from flows.running import run_pipeline
from services.config import Recipe
from services.errors import RewardError
from services.recipes import load_recipe, run_id_of
from services.store.opening import open_engine_to_read, store_url
from tests.flows.conftest import MICRO

BOXED = ("name='boxed'", "problems.format='boxed'", "problems.general=false")


def boxed(*changes: str) -> Recipe:
    return load_recipe("tiny", [*MICRO, *BOXED, *changes])


def test_training_stops_with_examples_where_the_base_misses_the_format(home: Path) -> None:
    """The bundled base answers in the paper's format, whatever it is asked for."""
    with pytest.raises(RewardError) as caught:
        run_pipeline(boxed(), home=home, until="zero")
    assert caught.value.what.startswith("the reward part ")
    assert caught.value.what.count(" | ") == 2, "three examples"
    assert "check_rewards=warn" in caught.value.mend
    assert not list((home / "artifacts").glob(".*")), "nothing half-written"


def test_the_format_of_the_recipe_is_rewarded(home: Path) -> None:
    recipe = boxed("check_rewards='off'")
    run_pipeline(recipe, home=home, until="zero")
    engine = open_engine_to_read(store_url({"R1_HOME": str(home)}))
    query = text(
        "SELECT rollouts.reason, rollouts.format FROM rollouts "
        "JOIN stages ON stages.id = rollouts.stage_id WHERE stages.run_id = :run"
    )
    with engine.connect() as connection:
        rows = connection.execute(query, {"run": run_id_of(recipe)}).all()
    assert len(rows) == recipe.zero.steps * recipe.zero.prompts_per_step * recipe.zero.group_size
    broken = [row.reason for row in rows if not row.format]
    assert broken
    assert all(
        "\\boxed" in reason or "<think>" in reason or "</think>" in reason for reason in broken
    )
