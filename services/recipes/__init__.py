"""Loading recipes: a TOML file over the defaults, ``--set`` over both, errors that name the mend.

The bundled recipes lie beside this file, named by what they train.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from services.artifacts import digest_of
from services.config import Recipe
from services.errors import RecipeError

FOLDER = Path(__file__).parent


def bundled_recipes() -> list[str]:
    """Names of the recipes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe by bundled name or path and apply ``key.path=value`` overrides.

    Values are read as TOML; what is not TOML is taken as a string.

    Raises:
        RecipeError: The recipe, a key or a value is not valid; the message names the nearest key.
    """
    path = FOLDER / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    if not path.is_file():
        raise RecipeError(
            f"there is no recipe {name!r}",
            f"Choose one of {', '.join(bundled_recipes())}, or give the path of a .toml file",
        )
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}", "Mend that line") from error
    raw.setdefault("name", path.stem)
    for override in overrides:
        _apply(raw, override)
    return validate_recipe(raw)


def validate_recipe(raw: Mapping[str, Any]) -> Recipe:
    """A recipe from plain data, such as a stored or posted one."""
    merged = _merge(_defaults(), raw)
    try:
        return Recipe.model_validate(merged)
    except ValidationError as error:
        raise RecipeError(*_explain(error)) from error


def recipe_digest(recipe: Recipe) -> str:
    """Digest of everything that decides the results; name and description do not."""
    return digest_of(recipe.model_dump(mode="json", exclude={"name", "description"}))


def run_id_of(recipe: Recipe) -> str:
    """The name of a recipe's pipeline; the same recipe and seed always have the same."""
    return f"{recipe.name}-s{recipe.seed}-{recipe_digest(recipe)[:8]}"


def flat_parameters(recipe: Recipe) -> dict[str, str]:
    """The resolved recipe as flat ``zero.learning_rate`` keys, for MLflow and tables."""
    return dict(_flatten("", recipe.model_dump(mode="json")))


def _defaults() -> dict[str, Any]:
    return Recipe(name="defaults").model_dump(mode="json", exclude={"name"})


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            merged[key] = _merge(base[key], value)
        else:
            merged[key] = value
    return merged


def _apply(raw: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {override!r} has no value", "Write it as --set zero.steps=20")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, key = dotted.strip().split(".")
    place = raw
    for table in tables:
        found = place.setdefault(table, {})
        if not isinstance(found, dict):
            raise RecipeError(f"{dotted!r} goes into a value, not a table", "Shorten the key")
        place = found
    place[key] = value


def _explain(error: ValidationError) -> tuple[str, str]:
    """The first problem of a validation, and how to mend it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(where, _all_keys(Recipe), n=1, cutoff=0.5)
        mend = f"Did you mean {nearest[0]}?" if nearest else "See r1 run --help for the keys"
        return f"the recipe has no key {where!r}", mend
    message = first["msg"].removeprefix("Value error, ")
    whole = not where or isinstance(first["input"], Mapping)
    return (
        f"{where or 'the recipe'}: {message}",
        "Change one of these keys" if whole else f"Got {first['input']!r}",
    )


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys += _all_keys(info.annotation, f"{prefix}{name}.")
    return keys


def _flatten(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else key, inner)
    else:
        yield prefix, str(value)
