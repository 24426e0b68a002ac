"""Rows to charts: pure functions, one look for all of them.

Stages lie on one axis, one behind the other, each under its name and its estimator. Colours are
those of Okabe and Ito, which stay apart for colour-blind eyes, and read on light and dark grounds.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import altair as alt
import pandas as pd

from dashboard.figures import Figure
from services.views import CurationCount, CurvePoint, Stage

PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C")
INK: Final = "#8C8C8C"
"""For rules and words that must show on any ground."""
KEPT_COLOUR, DROPPED_COLOUR = PALETTE[2], PALETTE[5]
HEIGHT: Final = 240
LEGEND: Final = alt.Legend(title=None, orient="bottom", columns=2, symbolOpacity=1, labelLimit=220)
LEGEND_HEIGHT: Final = 45
Layers = alt.LayerChart | alt.FacetChart
"""What altair makes of layers."""


class Span(NamedTuple):
    """The part of the common axis that belongs to one stage."""

    stage: str
    label: str
    start: int
    """Steps of all stages before it."""
    end: int


def spans(stages: Sequence[Stage]) -> list[Span]:
    """Stages one behind the other on one axis of steps."""
    made, start = [], 0
    for stage in stages:
        estimator = stage.attributes.get("estimator")
        label = f"{stage.name} ({estimator})" if estimator else stage.name
        made.append(Span(stage.name, label, start, start + stage.last_step))
        start += stage.last_step
    return made


def curve_table(
    figure: Figure, points: Sequence[CurvePoint], axis: Sequence[Span], smoothing: int
) -> pd.DataFrame:
    """Points of a figure with their place on the common axis and their smoothed value.

    Args:
        figure: Which metrics to take.
        points: Of any metrics.
        axis: Where each stage lies.
        smoothing: Values are averaged over this many points around each one.
    """
    places = {span.stage: span for span in axis}
    rows = [
        (places[p.stage].label, places[p.stage].start + p.step, p.step, p.name, p.value)
        for p in points
        if p.name in figure.metrics and p.stage in places
    ]
    table = pd.DataFrame(rows, columns=["stage", "place", "step", "metric", "value"])
    table["series"] = table["metric"].map(dict(figure.series))
    table["smooth"] = table.groupby(["stage", "metric"])["value"].transform(
        lambda values: values.rolling(smoothing, center=True, min_periods=1).mean()
    )
    return table


def curves(figure: Figure, table: pd.DataFrame, axis: Sequence[Span]) -> Layers:
    """A figure over all stages: thin for the values, thick for their running mean."""
    lines = table[table["series"].notna()]
    by = "stage" if len(figure.series) == 1 else "series"
    words = [span.label for span in axis] if by == "stage" else list(figure.series.values())
    shown = [word for word in words if word in set(lines[by])]
    colour = alt.Color(
        f"{by}:N",
        scale=alt.Scale(domain=shown, range=PALETTE[: len(shown)]),
        legend=None if by == "stage" else LEGEND,
    )
    end = axis[-1].end if axis else 1
    definition = {"means": json.dumps(figure.definition)}
    base = (
        alt.Chart(lines)
        .transform_calculate(**definition)
        .encode(
            alt.X(
                "place:Q",
                title="optimizer steps, stages in a row",
                scale=alt.Scale(domain=[0, max(end, 1)], nice=False),
                axis=alt.Axis(grid=False, tickMinStep=1),
            ),
            color=colour,
            detail="stage:N",
        )
    )
    height = alt.Y(
        "value:Q",
        title=figure.axis,
        scale=alt.Scale(domain=[0, 1]) if figure.share else alt.Scale(zero=False),
    )
    thin = base.mark_line(strokeWidth=1, opacity=0.3).encode(height)
    thick = base.mark_line(strokeWidth=2.5).encode(alt.Y("smooth:Q"))
    spots = base.mark_circle(size=60, opacity=0).encode(
        alt.Y("smooth:Q"),
        tooltip=[
            alt.Tooltip("stage:N", title="stage"),
            alt.Tooltip("step:Q", title="step"),
            alt.Tooltip("metric:N", title="metric"),
            alt.Tooltip("value:Q", title="value", format=".4~g"),
            alt.Tooltip("smooth:Q", title="running mean", format=".4~g"),
            alt.Tooltip("means:N", title="what it is"),
        ],
    )
    layers = [*_band(figure, table), *_borders(axis), thin, thick, spots]
    return alt.layer(*layers).properties(height=HEIGHT + (0 if by == "stage" else LEGEND_HEIGHT))


def funnel(counts: Sequence[CurationCount]) -> alt.Chart:
    """How many candidates of a data set were kept, and why the others were not."""
    rows = Counter[str]()
    for count in counts:
        rows[count.reason] += count.rows
    reasons = list(rows)
    table = pd.DataFrame({"reason": reasons, "rows": list(rows.values())})
    colours = [KEPT_COLOUR if reason == "kept" else DROPPED_COLOUR for reason in reasons]
    bars = alt.Chart(table, height=alt.Step(22)).mark_bar()
    encoded: alt.Chart = bars.encode(
        alt.X("rows:Q", title="candidates", axis=alt.Axis(tickMinStep=1, format=",d")),
        alt.Y("reason:N", title=None, sort=reasons, axis=alt.Axis(labelLimit=200)),
        alt.Color("reason:N", scale=alt.Scale(domain=reasons, range=colours), legend=None),
        tooltip=[alt.Tooltip("reason:N"), alt.Tooltip("rows:Q", title="candidates")],
    )
    return encoded


def _band(figure: Figure, table: pd.DataFrame) -> list[alt.Chart]:
    """The band between two metrics, smoothed as the lines are."""
    if figure.band is None:
        return []
    low, high = figure.band
    wide = table[table["metric"].isin(figure.band)].pivot_table(
        index=["stage", "place"], columns="metric", values="smooth"
    )
    if low not in wide or high not in wide:
        return []
    ends = wide.rename(columns={low: "low", high: "high"}).reset_index()
    return [
        alt.Chart(ends)
        .mark_area(opacity=0.18, color=PALETTE[0])
        .encode(alt.X("place:Q"), alt.Y("low:Q"), alt.Y2("high:Q"), detail="stage:N")
    ]


def _borders(axis: Sequence[Span]) -> list[alt.Chart]:
    """A rule where a stage begins, and its name."""
    table = pd.DataFrame(axis, columns=list(Span._fields))
    rules = alt.Chart(table[table["start"] > 0]).mark_rule(color=INK, strokeDash=[3, 3])
    names = alt.Chart(table).mark_text(align="left", dx=4, dy=-8, color=INK, fontSize=11)
    return [
        rules.encode(alt.X("start:Q")),
        names.encode(alt.X("start:Q"), alt.Y(value=0), text="label:N"),
    ]
