import pytest

from services import forms
from services.config import Recipe
from services.recipes import flat_parameters, load_recipe


def test_every_setting_is_a_field_with_its_meaning() -> None:
    recipe = load_recipe("tiny")
    found = [field for section in forms.sections() for field in forms.fields(recipe, section)]
    assert {field.key for field in found} | {"name", "description"} == set(flat_parameters(recipe))
    assert len({field.key for field in found}) == len(found)
    assert all(field.description for field in found)


def test_fields_are_typed_and_bounded_as_the_schema_says() -> None:
    recipe = load_recipe("tiny")
    zero = {field.key: field for field in forms.fields(recipe, "zero")}
    assert (zero["zero.steps"].kind, zero["zero.steps"].minimum) == ("integer", 0)
    assert zero["zero.steps"].value == recipe.zero.steps
    assert zero["zero.learning_rate"].kind == "number"
    assert "dapo" in zero["zero.estimator"].choices
    assert zero["zero.weights.format"].value == recipe.zero.weights.format


def test_only_what_differs_becomes_a_change_that_the_recipe_takes() -> None:
    recipe = load_recipe("tiny")
    shown = {
        field.key: field
        for section in ("zero", "problems", "models")
        for field in forms.fields(recipe, section)
    }
    entered = {key: field.value for key, field in shown.items()} | {
        "zero.learning_rate": forms.read(shown["zero.learning_rate"], "2e-4"),
        "problems.levels": forms.read(shown["problems.levels"], "[3, 4]"),
        "models.base": 'a "quoted" name',
    }
    changes = forms.changes(shown, entered)
    assert len(changes) == 3
    made = load_recipe("tiny", changes)
    assert made.zero.learning_rate == pytest.approx(2e-4)
    assert made.problems.levels == (3, 4)
    assert made.models.base == 'a "quoted" name'
    assert made.model_copy(update={"zero": recipe.zero, "problems": recipe.problems,
                                   "models": recipe.models}) == recipe  # fmt: skip


def test_what_is_no_number_is_left_to_validation() -> None:
    (seed, *_) = forms.fields(Recipe(name="x"), forms.TOP)
    number = seed._replace(kind="number")
    assert forms.read(number, "much") == "much"
    assert forms.read(number, "3") == 3.0
