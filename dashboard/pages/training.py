"""How did it learn? Reward, accuracy, length, language and reflection over all stages."""

import csv
import io
from collections.abc import Sequence

import streamlit as st
from sqlalchemy import Engine

from dashboard import charts, frame
from dashboard.figures import FIGURES, Figure
from services import views
from services.views import CurvePoint, Run, Stage

METRICS = sorted({name for figure in FIGURES for name in figure.metrics})


def page(engine: Engine, run: Run) -> None:
    """Curves of the chosen stages of a run."""
    trained = _trained(engine, run)
    if not trained:
        st.info("No stage of this run has made a step yet; curves appear with the first one.")
        frame.live(run, lambda: _wait_for_steps(engine, run))
        return
    choice, smoothing = st.columns([3, 1], vertical_alignment="bottom")
    with choice:
        names = _choose_stages(trained)
    with smoothing:
        width = st.slider(
            "Smoothing",
            1,
            25,
            5,
            key="smoothing",
            bind="query-params",
            help="The thick line is the mean over this many points around each one.",
        )
    if not names:
        st.info("Choose a stage.")
        return
    frame.live(run, lambda: _draw(engine, run, trained, names, width))


def _trained(engine: Engine, run: Run) -> list[Stage]:
    """Stages that have steps to draw."""
    stages = views.run_overview(engine, run.id).stages
    return [stage for stage in stages if stage.kind in {"rl", "sft"} and stage.last_step]


def _choose_stages(trained: Sequence[Stage]) -> list[str]:
    """Those of the address, else all that learn by reward, as they come."""
    options = [stage.name for stage in trained]
    default = [stage.name for stage in trained if stage.kind == "rl"] or options
    asked = st.session_state.get("stages", st.query_params.get("stages"))
    if asked is None or asked == st.session_state.get("default_stages"):
        st.session_state["stages"] = default
    st.session_state["default_stages"] = default
    return st.pills("Stages", options, selection_mode="multi", key="stages", bind="query-params")


def _wait_for_steps(engine: Engine, run: Run) -> None:
    if _trained(engine, run):
        st.rerun()


def _draw(
    engine: Engine, run: Run, trained: Sequence[Stage], names: Sequence[str], smoothing: int
) -> None:
    now = _trained(engine, run)
    if len(now) != len(trained):
        st.rerun()
    axis = charts.spans([stage for stage in now if stage.name in names])
    points = views.training_curves(engine, run.id, names, METRICS)
    drawn = {point.name for point in points}
    figures = [figure for figure in FIGURES if drawn & figure.series.keys()]
    for left in range(0, len(figures), 2):
        for column, figure in zip(st.columns(2), figures[left : left + 2], strict=False):
            with column:
                _draw_figure(figure, points, axis, smoothing)
    st.download_button(
        "Download these numbers (CSV)",
        _as_csv(run, points),
        file_name=f"{run.id}-curves.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _draw_figure(
    figure: Figure, points: Sequence[CurvePoint], axis: Sequence[charts.Span], smoothing: int
) -> None:
    st.markdown(f"**{figure.title}**", help=figure.definition)
    table = charts.curve_table(figure, points, axis, smoothing)
    st.altair_chart(
        charts.curves(figure, table, axis), width="stretch", alt=f"{figure.title}: {figure.axis}"
    )


def _as_csv(run: Run, points: Sequence[CurvePoint]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["run", *CurvePoint._fields])
    writer.writerows((run.id, *point) for point in points)
    return text.getvalue()


frame.show("Training", page)
