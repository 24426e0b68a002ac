"""The recipe's schema as fields of a form: what can be set, how it is typed, what it means. Pure.

Nothing of the recipe is written down a second time: names, bounds, choices and descriptions are
those of ``services.config``. What a form gives back is a list of ``key=value`` as after ``--set``,
for what differs from the recipe and nothing else; whether it is valid ``load_recipe`` says.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from services.config import Recipe

FieldKind = Literal["integer", "number", "boolean", "choice", "text", "list"]
TOP: Final = "recipe"
"""The section of settings that stand outside all tables."""
_HIDDEN: Final = frozenset({"name", "description"})


class Field(NamedTuple):
    """One setting."""

    key: str
    """As after ``--set``: ``zero.weights.format``."""
    kind: FieldKind
    value: Any
    """What the recipe says."""
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


def sections() -> list[str]:
    """The tables of a recipe in their order, after the settings outside all of them."""
    schema = Recipe.model_json_schema()
    tables = [name for name, entry in schema["properties"].items() if _table(schema, entry)]
    return [TOP, *tables]


def fields(recipe: Recipe, section: str) -> list[Field]:
    """The settings of one section with their values in a recipe."""
    schema = Recipe.model_json_schema()
    values = recipe.model_dump(mode="json")
    if section == TOP:
        return [
            _field(name, entry, values[name])
            for name, entry in schema["properties"].items()
            if _table(schema, entry) is None and name not in _HIDDEN
        ]
    return _fields(schema, schema["properties"][section], section, values[section])


def changes(shown: Mapping[str, Field], entered: Mapping[str, Any]) -> list[str]:
    """``key=value`` for every entered value that differs from the one shown, in TOML."""
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in entered.items()
        if value != shown[key].value
    ]


def read(field: Field, text: str) -> Any:
    """A number or a list as somebody typed it; what is none stays text, and validation says so."""
    if field.kind not in {"number", "list"}:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if field.kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _fields(
    schema: Mapping[str, Any], entry: Mapping[str, Any], prefix: str, values: Mapping[str, Any]
) -> list[Field]:
    table = _table(schema, entry)
    assert table is not None
    found: list[Field] = []
    for name, inner in table["properties"].items():
        key = f"{prefix}.{name}"
        if _table(schema, inner) is not None:
            found += _fields(schema, inner, key, values[name])
        elif inner.get("type") != "object":  # a table of free keys fits no field
            found.append(_field(key, inner, values[name]))
    return found


def _table(schema: Mapping[str, Any], entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The table that an entry refers to; None if it is a value."""
    name = entry.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] | None = schema.get("$defs", {}).get(name)
    return found if found and found.get("type") == "object" else None


def _field(key: str, entry: Mapping[str, Any], value: Any) -> Field:
    described = " ".join(str(entry.get("description", "")).split())
    if "enum" in entry:
        choices = tuple(map(str, entry["enum"]))
        return Field(key, "choice", value, described, choices=choices)
    kinds: dict[str, FieldKind] = {
        "integer": "integer",
        "number": "number",
        "boolean": "boolean",
        "array": "list",
    }
    return Field(
        key,
        kinds.get(entry.get("type", ""), "text"),
        value,
        described,
        minimum=entry.get("minimum", entry.get("exclusiveMinimum")),
        maximum=entry.get("maximum", entry.get("exclusiveMaximum")),
    )
