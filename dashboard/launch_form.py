"""A form for a recipe, generated from its schema, and what would be run."""

import json
from typing import Any

import streamlit as st

from dashboard import panels, people, places
from dashboard.plain_text import visible
from services import forms
from services.access import Actor
from services.config import Recipe
from services.errors import R1Error, RecipeError
from services.forms import Field
from services.recipes import bundled_recipes, load_recipe, run_id_of

COLUMNS = 3


def draw(actor: Actor) -> None:
    """Choose a recipe, change some of it, look at what would run, launch it."""
    panels.heading(
        "Launch a run",
        "The run is a process of its own on this machine: closing the dashboard does not stop it. "
        "What is finished already is not run again.",
    )
    with st.container(border=True):
        names = bundled_recipes()
        first, second = st.columns([1, 2])
        name = first.selectbox(
            "Recipe",
            names,
            index=names.index("tiny") if "tiny" in names else 0,
            key="recipe",
            bind="query-params",
        )
        recipe = load_recipe(name or names[0])
        st.text(recipe.description)
        chosen = second.multiselect(
            "Settings to change",
            forms.sections(),
            key="sections",
            bind="query-params",
            placeholder="none: the recipe as it is",
        )
        changed = [change for section in chosen for change in _section(recipe, section)]
        _preview(actor, recipe, changed)


def _section(recipe: Recipe, section: str) -> list[str]:
    """The fields of a section; what was changed in it."""
    shown = {field.key: field for field in forms.fields(recipe, section)}
    entered: dict[str, Any] = {}
    with st.expander(section, expanded=True):
        columns = st.columns(COLUMNS)
        for place, field in enumerate(shown.values()):
            with columns[place % COLUMNS]:
                entered[field.key] = _widget(recipe, field)
    return forms.changes(shown, entered)


def _widget(recipe: Recipe, field: Field) -> Any:
    label = field.key.partition(".")[2] or field.key
    key = f"set/{recipe.name}/{field.key}"
    if field.kind == "boolean":
        return st.checkbox(
            label, bool(field.value), key=key, bind="query-params", help=field.description
        )
    if field.kind == "choice":
        return st.selectbox(
            label,
            field.choices,
            index=field.choices.index(field.value),
            key=key,
            bind="query-params",
            help=field.description,
        )
    if field.kind == "integer":
        return st.number_input(
            label,
            value=int(field.value),
            min_value=None if field.minimum is None else int(field.minimum),
            max_value=None if field.maximum is None else int(field.maximum),
            step=1,
            key=key,
            bind="query-params",
            help=field.description,
        )
    written = field.value if field.kind == "text" else json.dumps(field.value)
    text = st.text_input(label, written, key=key, bind="query-params", help=field.description)
    return forms.read(field, text)


def _preview(actor: Actor, recipe: Recipe, changed: list[str]) -> None:
    try:
        run_id = run_id_of(load_recipe(recipe.name, changed))
    except RecipeError as error:
        st.warning("That is no valid recipe.")
        st.text(visible(str(error)))
        return
    command = " ".join(
        ["r1 run --recipe", recipe.name, *(f"--set '{change}'" for change in changed)]
    )
    st.text(visible(f"Runs, or goes on with, {run_id}. The same from a terminal:"))
    st.code(visible(command), language=None, wrap_lines=True)
    if people.button(
        actor, "launch runs", "Launch", key="launch", type="primary", icon=":material/play_arrow:"
    ):
        try:
            launch = places.control().launch(actor, recipe.name, changed)
        except R1Error as error:
            st.error("It was not started.")
            st.text(visible(str(error)))
        else:
            st.success(f"{launch.run_id} was started.")
