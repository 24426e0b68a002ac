"""Recipes: every bundled one parses, mistakes are named, the schema is pinned."""

import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from services.config import Recipe
from services.errors import RecipeError
from services.recipes import bundled_recipes, flat_parameters, load_recipe, recipe_digest

SCHEMA = Path(__file__).parent / "golden" / "recipe_schema.json"


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipes_parse(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert load_recipe(name) == recipe


def test_an_override_is_read_as_toml_and_changes_the_digest():
    plain = load_recipe("tiny")
    changed = load_recipe("tiny", ["zero.steps=20", "problems.levels=[3]", "models.base=here"])
    assert changed.zero.steps == 20
    assert changed.problems.levels == (3,)
    assert changed.models.base == "here"
    assert recipe_digest(changed) != recipe_digest(plain)
    renamed = load_recipe("tiny", ["name='other'"])
    assert recipe_digest(renamed) == recipe_digest(plain), "a name decides nothing"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("zero.step=20", r"no key 'zero\.step'.*Did you mean zero\.steps"),
        ("zeor.steps=20", r"no key 'zeor'.*Did you mean zero"),
        ("zero.steps=-1", r"zero\.steps: .*greater than or equal to 0"),
        ("zero.steps=many", r"zero\.steps: .*Got 'many'"),
        ("zero.steps", "has no value"),
        ("zero.steps.deep=1", "value, not a table"),
        ("problems.source='jsonl'", "train_file must name a file"),
        ("zero.top_p=0.9", r"zero\.top_p: rollouts need top_p = 1: .*another distribution"),
        ("zero.estimator='luspo'", r"luspo needs importance_sampling = 'sequence'"),
        ("dev2.keep_best=2", "keep_best needs eval_every"),
        ("zero.choice.min_pass_rate=0.9", "must not exceed"),
        ("zero.guards.policies.speed='warn'", r"zero\.guards\.policies\.speed"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("tiny", [override])


def test_an_unknown_recipe_names_those_there_are():
    with pytest.raises(RecipeError, match="tiny"):
        load_recipe("large")


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[zero\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(str(path))


def test_every_setting_says_what_it_is():
    def undocumented(model: type[BaseModel], prefix: str) -> list[str]:
        found = []
        for name, info in model.model_fields.items():
            if not info.description:
                found.append(prefix + name)
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                found += undocumented(info.annotation, f"{prefix}{name}.")
        return found

    assert undocumented(Recipe, "") == []


def test_parameters_are_flat():
    flat = flat_parameters(load_recipe("tiny"))
    assert flat["zero.estimator"] == "dapo"
    assert all(isinstance(value, str) for value in flat.values())


def test_the_schema_is_pinned():
    """A new setting shows in review; ``make golden`` writes it."""
    schema = json.dumps(Recipe.model_json_schema(), indent=1, ensure_ascii=False, sort_keys=True)
    if os.environ.get("R1_GOLDEN") == "write":
        SCHEMA.write_text(schema + "\n", encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8").strip() == schema
