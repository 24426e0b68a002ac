"""Where is the run, what came out? The recipe as a graph, the stage table, the decision."""

import streamlit as st
from sqlalchemy import Engine
from streamlit.elements.lib.column_types import ColumnConfig

from dashboard import charts, frame
from dashboard.lineage import PLAN, lineage_dot
from services import views
from services.views import Decision, Evaluation, Run, Stage

LEVEL = "pass@1/level_"
# Metric to heading, format and meaning; a name that ends in @ stands for any k.
COLUMNS = {
    "pass@1": ("pass@1", "%.2f", "Share of right answers, mean over levels and samples"),
    "cons@": ("cons@{k}", "%.2f", "Share of problems whose most frequent answer is right"),
    "language/consistency": ("language", "%.2f", "Share of words in the question's language"),
    "length/right": ("tokens, right", "%.0f", "Mean length of right answers, tokens"),
    "length/wrong": ("tokens, wrong", "%.0f", "Mean length of wrong answers, tokens"),
    "reflective/mean": ("reflective", "%.2f", "Reflective words per completion"),
    "gives_up": ("gives up", "%.2f", "Share that stops searching without an answer"),
    "false_claims": ("false claims", "%.2f", "Share that claims success on a wrong value"),
    "slips": ("slips", "%.3f", "Arithmetic or copying errors per step of the traces"),
    "helpfulness": ("helpful", "%.2f", "Share of helpful responses to harmless prompts"),
    "safety": ("safe", "%.2f", "Share of safe responses to general prompts"),
}


def page(engine: Engine, run: Run) -> None:
    """Graph, stage table, decision and data sets of a run."""
    frame.live(run, lambda: _draw(engine, run))


def _draw(engine: Engine, run: Run) -> None:
    now, stages = views.run_overview(engine, run.id)
    _figures(now, stages)
    st.graphviz_chart(
        lineage_dot(stages), width="stretch", alt="Stages of the recipe and what feeds them"
    )
    st.caption(
        "Solid: a model goes on training. Dashed: data, rewards or a candidate. Orange: training "
        "starts again from the base model."
    )
    _decisions(views.decisions(engine, run.id))
    _table(views.evaluation_table(engine, run.id))
    _data_sets(engine, run, stages)


def _figures(run: Run, stages: list[Stage]) -> None:
    active = [stage for stage in stages if stage.state == "running"]
    numbers = {
        "State": run.state,
        "Stages done": f"{run.stages_done} of {max(len(PLAN), len(stages))}",
        "Time in stages": frame.duration(sum(stage.seconds for stage in stages)),
        "Now": active[-1].name if active else "–",
    }
    for column, (label, value) in zip(st.columns(len(numbers)), numbers.items(), strict=True):
        column.metric(label, value, border=True)
    for stage in active:
        if stage.progress is not None:
            done = f"{stage.name}: step {stage.last_step} of {stage.total_steps}"
            st.progress(stage.progress, text=done)


def _decisions(decisions: list[Decision]) -> None:
    for decision in decisions:
        st.subheader("Decision", anchor=False)
        if decision.promoted:
            st.success(f"`{decision.model}` was promoted to champion.", icon=":material/check:")
        else:
            st.warning(f"`{decision.model}` was not promoted.", icon=":material/block:")
        st.text("\n".join([*decision.reasons, decision.note]).strip())


def _table(evaluations: list[Evaluation]) -> None:
    if not evaluations:
        return
    st.subheader("Every model on the held-out problems", anchor=False)
    names = _ordered_names(evaluations)
    rows = [{"model": row.model, **{n: row.summary.get(n) for n in names}} for row in evaluations]
    st.dataframe(
        rows,
        hide_index=True,
        column_config={name: _column(name) for name in names},
        height="content",
    )
    protocol = ", ".join(f"{key} {value}" for key, value in evaluations[0].protocol.items())
    st.text(f"Measured with {protocol}")


def _ordered_names(evaluations: list[Evaluation]) -> list[str]:
    """Columns that some model has a number for: the levels after pass@1, then as listed."""
    there = {name for row in evaluations for name in row.summary}
    names = []
    for wanted in COLUMNS:
        stem = wanted if wanted.endswith("@") else None
        names += sorted(n for n in there if n == wanted or (stem and n.startswith(stem)))
        if wanted == "pass@1":
            names += sorted(name for name in there if name.startswith(LEVEL))
    return names


def _column(name: str) -> ColumnConfig:
    if name.startswith(LEVEL):
        level = name.removeprefix(LEVEL)
        return st.column_config.NumberColumn(
            f"level {level}", format="%.2f", help=f"pass@1 on problems of level {level}"
        )
    k = name.partition("@")[2]
    heading, form, meaning = COLUMNS[name] if name in COLUMNS else COLUMNS[name.removesuffix(k)]
    return st.column_config.NumberColumn(heading.format(k=k), format=form, help=meaning)


def _data_sets(engine: Engine, run: Run, stages: list[Stage]) -> None:
    names = [stage.name for stage in stages if stage.kind == "curation"]
    funnels = {name: views.curation_funnel(engine, run.id, name) for name in names}
    made = [(name, counts) for name, counts in funnels.items() if counts]
    if not made:
        return
    st.subheader("What curation kept", anchor=False)
    for column, (name, counts) in zip(st.columns(max(2, len(made))), made, strict=False):
        with column:
            kept = sum(count.rows for count in counts if count.reason == "kept")
            total = sum(count.rows for count in counts)
            st.markdown(f"**{name}**: {kept:,} of {total:,} candidates")
            st.altair_chart(charts.funnel(counts), width="stretch", alt=f"Funnel of {name}")


frame.show("Overview", page)
