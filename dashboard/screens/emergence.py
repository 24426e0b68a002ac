"""When does it begin to reason? Length, reflection, accuracy by level, language, first steps."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import streamlit as st
from sqlalchemy import Engine

from dashboard import charts, emergence_charts, frame, overlay, panels, question
from dashboard.charts import Mark, Span
from dashboard.figures import EMERGENCE, GIVES_UP, MIXING, RECHECK, Figure, word_metric
from dashboard.overlay import Line
from services import views
from services.reflection import REFLECTIVE_WORDS
from services.views import CurvePoint, Onset, Run, Stage

LANGUAGES: Final = {"English": "en", "Chinese": "zh"}
STRETCHES: Final = 60
# Of one stage in the chart of words.
RULE: Final = (
    "Beginning: the first tenth of the steps, at least five. Seen: the mean of the last five "
    "steps. It has set in at the first step from which what is seen stays beyond the mean of the "
    "beginning for five steps in a row, by more than three standard errors of such a mean and by "
    "more than a tenth of it (0.01 at least). The same rule for every curve; it says when "
    "something changed, not why."
)
WORDS: Final = (
    "Mean count per completion of each word that the paper counts (v2, figure 9a), in the form of "
    "one language; a column is a stretch of steps"
)


class Phenomenon(NamedTuple):
    """Something whose first step is looked for."""

    name: str
    figure: Figure
    rising: bool


PHENOMENA: Final = (
    Phenomenon("Re-checking", RECHECK, rising=True),
    Phenomenon("Giving up less", GIVES_UP, rising=False),
    Phenomenon("Language mixing", MIXING, rising=True),
)


def page(engine: Engine, run: Run) -> None:
    """First steps, curves, words, and one question through training."""
    lines = overlay.choose(engine, run)
    trained = [stage for stage in overlay.stages_of(engine, run, lines) if stage.kind == "rl"]
    if not trained:
        st.info(
            "No stage of this run has learned by reward yet; curves appear with its first step."
        )
        frame.live(run, lambda: _wait_for_steps(engine, run, lines))
        return
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        there = list(dict.fromkeys(stage.name for stage in trained))
        names = overlay.choose_stages(there, there[:1], key="stages_shown")
    smoothing = right.slider(
        "Smoothing", 1, 25, 5, key="smoothing", bind="query-params",
        help="The thick line is the mean over this many points around each one.",
    )  # fmt: skip
    if not names:
        st.info("Choose a stage.")
        return
    frame.live(run, lambda: _draw(engine, run, lines, names, smoothing))
    question.draw(engine, run, names)


def _wait_for_steps(engine: Engine, run: Run, lines: Sequence[Line]) -> None:
    if any(stage.kind == "rl" for stage in overlay.stages_of(engine, run, lines)):
        st.rerun()


def _draw(
    engine: Engine, run: Run, lines: Sequence[Line], names: Sequence[str], smoothing: int
) -> None:
    trained: list[Stage] = overlay.stages_of(engine, run, lines)
    axis = charts.spans(stage for stage in trained if stage.name in names)
    known = frame.ask(run, views.metric_names, engine, run.id, tuple(names))
    figures = [figure.of(known) for figure in EMERGENCE]
    wanted = {metric for figure in figures for metric in figure.metrics}
    wanted |= {metric for phenomenon in PHENOMENA for metric in phenomenon.figure.series}
    points = overlay.points_of(engine, run, lines, names, sorted(wanted & set(known)))
    first = next(iter(points.values()))
    marks = _first_steps(run, first, axis)
    columns = st.columns(2)
    for place, figure in enumerate(figure for figure in figures if figure.series):
        of_figure = [mark for metric in figure.series for mark in marks.get(metric, [])]
        with columns[place % 2]:
            table = charts.curve_table(figure, points, axis, smoothing)
            drawn = charts.curves(figure, table, axis, marks=of_figure if len(lines) == 1 else ())
            panels.draw(figure.title, figure.definition, drawn, name=f"{run.id}-{figure.title}")
    _words(engine, run, names, axis, known)


def _first_steps(
    run: Run, points: Sequence[CurvePoint], axis: Sequence[Span]
) -> dict[str, list[Mark]]:
    """The table of first steps; and where they lie, by metric."""
    marks: dict[str, list[Mark]] = {}
    rows = []
    for phenomenon in PHENOMENA:
        (metric,) = phenomenon.figure.series
        for span in axis:
            curve = [(p.step, p.value) for p in points if (p.stage, p.name) == (span.stage, metric)]
            found = views.onset(curve, rising=phenomenon.rising)
            rows.append((phenomenon.name, span.stage, *_row(found, recorded=bool(curve))))
            if found is not None and found.step is not None:
                label = f"{phenomenon.name} sets in at step {found.step} of {span.stage}"
                label += "" if found.lasted else ", but did not last"
                mark = Mark(span.start + found.step, label, lasting=found.lasted)
                marks.setdefault(metric, []).append(mark)
    names = ("what", "stage", "sets in", "before", "at the end", "still so")
    panels.heading(
        "First steps",
        RULE,
        download=lambda: panels.rows_as_csv(names, rows),
        name=f"{run.id}-first-steps",
    )
    helps = {
        "what": " · ".join(f"{p.name}: {p.figure.definition}" for p in PHENOMENA),
        "sets in": RULE,
        "before": "Mean of the first tenth of the steps",
        "at the end": "Mean of the last five steps",
        "still so": "Whether it is still beyond the bound at the last step",
    }
    st.dataframe(
        {name: [row[place] for row in rows] for place, name in enumerate(names)},
        hide_index=True,
        column_config={
            name: st.column_config.Column(name, help=text) for name, text in helps.items()
        },
        height="content",
    )
    return marks


def _row(found: Onset | None, *, recorded: bool) -> tuple[str, str, str, str]:
    if found is None:
        return ("too few steps" if recorded else "not recorded", "–", "–", "–")
    where = "does not" if found.step is None else f"step {found.step}"
    where += "" if found.step is None or found.lasted else ", did not last"
    lasted = "–" if found.step is None else ("yes" if found.lasted else "no")
    return where, f"{found.before:.3g}", f"{found.last:.3g}", lasted


def _words(
    engine: Engine, run: Run, names: Sequence[str], axis: Sequence[Span], known: Sequence[str]
) -> None:
    language = st.segmented_control(
        "Words in", list(LANGUAGES), default="English", key="words", bind="query-params",
        required=True,
    )  # fmt: skip
    code = LANGUAGES[language]
    metrics = {
        word_metric(code, word): (getattr(forms, code) if code == "en" else f"{forms.zh} ({word})")
        for word, forms in REFLECTIVE_WORDS.items()
    }
    if not metrics.keys() & set(known):
        st.info("This run did not record reflective words one by one.")
        return
    points = frame.ask(
        run, views.training_curves, engine, run.id, tuple(names), tuple(metrics), STRETCHES
    )
    counts = _stretches(points, metrics, axis, language)
    drawn = emergence_charts.words_over_steps(list(metrics.values()), counts, axis)
    panels.draw(f"Reflective words in {language}", WORDS, drawn, name=f"{run.id}-words-{code}")


def _stretches(
    points: Sequence[CurvePoint], metrics: Mapping[str, str], axis: Sequence[Span], language: str
) -> charts.Columns:
    """Each point as the stretch of steps since the one before."""
    starts = {span.stage: span.start for span in axis}
    counts: charts.Columns = {
        name: [] for name in ("word", "language", "stage", "step", "from", "to", "count")
    }
    before: dict[tuple[str, str], int] = {}
    for point in points:
        since = before.get((point.stage, point.name), 0)
        before[point.stage, point.name] = point.step
        start = starts[point.stage]
        values = (metrics[point.name], language, point.stage, point.step, start + since,
                  start + point.step, point.value)  # fmt: skip
        for name, value in zip(counts, values, strict=True):
            counts[name].append(value)
    return counts


frame.show("Emergence", page)
