"""Which runs a page draws beside the chosen one, and which of them are seeds of one recipe.

Runs whose recipes differ in nothing but the seed are one line: their mean, with a band from the
lowest to the highest. Other runs are lines of their own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import streamlit as st
from sqlalchemy import Engine

from dashboard import address, frame
from dashboard.charts import PALETTE
from services import views
from services.views import CurvePoint, Run, Stage

MAX_LINES = len(PALETTE)
POINTS = 600
"""Of all lines and stages of one metric together: more cannot be told apart on a screen."""


class Line(NamedTuple):
    """What is drawn in one colour."""

    label: str
    run_ids: tuple[str, ...]


def choose(engine: Engine, run: Run) -> list[Line]:
    """The chosen run, and those the reader wants beside it; the address names them."""
    wanted = [*st.session_state.get("with", []), *st.query_params.get_all("with")]
    runs = frame.ask(None, views.list_runs, engine, also=tuple(wanted))
    others = {other.id: other for other in runs if other.id != run.id}
    if not others:
        return [Line(run.id, (run.id,))]
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    address.keep_among("with", others)
    names = left.multiselect(
        "Beside it",
        list(others),
        key="with",
        bind="query-params",
        placeholder="Other runs and seeds",
        max_selections=30,
    )
    joined = right.toggle(
        "Seeds as one line",
        True,
        key="seeds",
        bind="query-params",
        disabled=not names,
        help="Runs whose recipes differ in nothing but the seed become one line: their mean, with "
        "a band from the lowest to the highest.",
    )
    chosen = [run, *(others[name] for name in names)]
    return lines_of(engine, chosen, joined=joined)


def lines_of(engine: Engine, runs: Sequence[Run], *, joined: bool) -> list[Line]:
    """Runs as lines, at most as many as there are colours."""
    if not joined or len(runs) == 1:
        return [Line(run.id, (run.id,)) for run in runs][:MAX_LINES]
    recipes = frame.ask(None, views.same_recipe, engine, tuple(run.id for run in runs))
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(recipes.get(run.id, run.id), []).append(run)
    lines = []
    for digest, members in groups.items():
        if len(members) == 1:
            lines.append(Line(members[0].id, (members[0].id,)))
            continue
        seeds = ", ".join(str(run.seed) for run in sorted(members, key=lambda run: run.seed))
        name = f"{members[0].recipe_name} {digest[:4]}, seeds {seeds}"
        lines.append(Line(name, tuple(run.id for run in members)))
    return lines[:MAX_LINES]


def choose_stages(names: Sequence[str], default: Sequence[str], *, key: str) -> list[str]:
    """The stages to draw: those the reader wants, or those of the address, else ``default``.

    Where nothing was chosen, ``default`` is followed as it grows; what was chosen for another run
    counts where this one has any of it.
    """
    address.follow(key, list(default))
    address.keep_among(key, names, otherwise=list(default))
    return st.pills(
        "Stages", names, default=default, selection_mode="multi", key=key, bind="query-params"
    )


def stages_of(engine: Engine, run: Run, lines: Sequence[Line]) -> list[Stage]:
    """Stages of all lines that have steps, in the order of the chosen run."""
    found = []
    for run_id in dict.fromkeys([run.id, *(name for line in lines for name in line.run_ids)]):
        stages = frame.ask(run, views.run_overview, engine, run_id).stages
        found += [stage for stage in stages if stage.kind in {"rl", "sft"} and stage.last_step]
    return found


def points_of(
    engine: Engine, run: Run, lines: Sequence[Line], stages: Sequence[str], names: Sequence[str]
) -> dict[str, list[CurvePoint]]:
    """The points of every line."""
    most = max(50, POINTS // (len(lines) * max(1, len(stages))))
    found: dict[str, list[CurvePoint]] = {}
    for line in lines:
        ask = (tuple(stages), tuple(names), most)
        if len(line.run_ids) == 1:
            (run_id,) = line.run_ids
            found[line.label] = frame.ask(run, views.training_curves, engine, run_id, *ask)
        else:
            found[line.label] = frame.ask(run, views.seed_curves, engine, line.run_ids, *ask)
    return found
