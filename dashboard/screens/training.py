"""How did it learn? Reward, held-out accuracy, policy and speed over all stages, run beside run."""

from collections.abc import Sequence

import streamlit as st
from sqlalchemy import Engine

from dashboard import charts, frame, overlay, panels
from dashboard.charts import Level, Mark, Span
from dashboard.figures import HELD_OUT, SECTIONS, Figure
from dashboard.overlay import Line
from services import views
from services.views import CurvePoint, Evaluation, Run

MODEL_OF = {"zero": "r1-zero", "dev1": "dev1", "dev2": "dev2", "dev3": "dev3", "r1": "r1",
            "distill": "distill", "student-rl": "student-rl"}  # fmt: skip
# The row of the stage table that measures what a stage made.
PEERS = ("distill", "student-rl")


def page(engine: Engine, run: Run) -> None:
    """Curves of the chosen stages, of one run or of several."""
    lines = overlay.choose(engine, run)
    trained = overlay.stages_of(engine, run, lines)
    if not trained:
        st.info("No stage of this run has made a step yet; curves appear with the first one.")
        frame.live(run, lambda: _wait_for_steps(engine, run, lines))
        return
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        kinds = {stage.name: stage.kind for stage in trained}
        rewarded = [name for name, kind in kinds.items() if kind == "rl"]
        names = overlay.choose_stages(list(kinds), rewarded or list(kinds), key="stages")
    with right:
        smoothing = st.slider(
            "Smoothing",
            1,
            25,
            5,
            key="smoothing",
            bind="query-params",
            help="The thick line is the mean over this many points around each one.",
        )
    section = st.segmented_control(
        "Figures", list(SECTIONS), default=next(iter(SECTIONS)), key="figures",
        bind="query-params", label_visibility="collapsed", required=True,
    )  # fmt: skip
    reference = _choose_reference() if HELD_OUT in SECTIONS[section] else []
    if not names:
        st.info("Choose a stage.")
        return
    frame.live(run, lambda: _draw(engine, run, lines, names, section, smoothing, reference))


def _choose_reference() -> list[Level]:
    """A line of the reader's own: what people or another model reach on these problems."""
    with st.popover("Line to compare with", icon=":material/straighten:"):
        value = st.number_input(
            "Share of right answers", 0.0, 1.0, None, 0.01, key="reference", bind="query-params",
            help="What people, or a model measured elsewhere, reach on problems like these.",
        )  # fmt: skip
        name = st.text_input("Whose", "human", key="whose", bind="query-params", max_chars=40)
    return [] if value is None else [Level(name or "reference", value)]


def _wait_for_steps(engine: Engine, run: Run, lines: Sequence[Line]) -> None:
    if overlay.stages_of(engine, run, lines):
        st.rerun()


def _draw(
    engine: Engine,
    run: Run,
    lines: Sequence[Line],
    names: Sequence[str],
    section: str,
    smoothing: int,
    reference: Sequence[Level],
) -> None:
    trained = overlay.stages_of(engine, run, lines)
    axis = charts.spans(stage for stage in trained if stage.name in names)
    wanted = sorted({name for figure in SECTIONS[section] for name in figure.metrics})
    points = overlay.points_of(engine, run, lines, names, wanted)
    there = {point.name for line in points.values() for point in line}
    measured = frame.ask(run, views.evaluation_table, engine, run.id)
    columns = st.columns(2)
    place = 0
    for whole in SECTIONS[section]:
        figure = whole.of(there)
        marks, levels = _held_out(measured, axis) if whole is HELD_OUT else ([], [])
        if not figure.series and not marks:
            continue
        with columns[place % 2]:
            shown = [*levels, *reference] if whole is HELD_OUT else []
            _draw_figure(figure, points, axis, smoothing, marks, shown, f"{run.id}-{place}")
        place += 1
    if not place:
        st.info("The chosen stages record nothing of this kind.")


def _draw_figure(
    figure: Figure,
    points: dict[str, list[CurvePoint]],
    axis: Sequence[Span],
    smoothing: int,
    marks: Sequence[Mark],
    levels: Sequence[Level],
    stem: str,
) -> None:
    table = charts.curve_table(figure, points, axis, smoothing)
    drawn = charts.curves(figure, table, axis, marks=marks, levels=levels)
    panels.draw(figure.title, figure.definition, drawn, name=f"{stem}-{figure.title}")


def _held_out(
    measured: Sequence[Evaluation], axis: Sequence[Span]
) -> tuple[list[Mark], list[Level]]:
    """Evaluations as dots at the end of their stage, and lines to compare with.

    They are those of the chosen run; the base model and the peers (the student by distillation and
    by reinforcement learning) are rules from side to side.
    """
    by_model = {evaluation.model: evaluation.summary for evaluation in measured}
    marks = []
    for span in axis:
        summary = by_model.get(MODEL_OF.get(span.stage, ""), {})
        for name in sorted(summary):
            value = summary[name]
            if value is not None and (name == "pass@1" or name.startswith("cons@")):
                marks.append(Mark(span.end, f"{name} of {MODEL_OF[span.stage]}", value))
    drawn = {span.stage for span in axis}
    compared = {"base": "base", **{name: name for name in PEERS if name not in drawn}}
    levels = [
        Level(f"{label}, pass@1", value)
        for model, label in compared.items()
        if (value := by_model.get(model, {}).get("pass@1")) is not None
    ]
    return marks, levels


frame.show("Training", page)
