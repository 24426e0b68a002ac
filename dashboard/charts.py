"""Rows to charts: pure functions, one look for all of them.

A chart is a Vega-Lite specification with its numbers beside it; the tests hold every one against
Vega-Lite's schema. Built by hand and not with altair's objects, which take 40 ms a chart to check
themselves at every drawing. Stages lie on one axis, one behind the other, each under its name and
its estimator. Colours are those of Okabe and Ito, which stay apart for colour-blind eyes, and read
on light and dark grounds; series are told apart by dashes where colour stands for runs.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final, NamedTuple

from dashboard.figures import Figure
from dashboard.name_places import name_places
from services.views import CurvePoint, Stage

Columns = dict[str, list[Any]]
"""A table: name of a column to its values, all equally many."""
Spec = dict[str, Any]

PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C8C8C")
KEPT_COLOUR, DROPPED_COLOUR = PALETTE[2], PALETTE[5]
INK: Final = "#8C8C8C"
"""For rules and words that must show on any ground."""
HEIGHT: Final = 270
LEGEND_HEIGHT: Final = 45
LEGEND_ROW: Final = 20
"""Pixels that a legend takes, and each of its rows after the first."""
LEGEND: Final[Spec] = {
    "title": None, "orient": "bottom", "symbolOpacity": 1, "labelLimit": 260,
    "columns": {"expr": "width < 420 ? 2 : 3"},
}  # fmt: skip
LEGEND_COLUMNS: Final = 3
"""Of a legend that is not on a phone."""
DASHES: Final = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [4, 1], [1, 3])
CROWDED: Final = 0.2
"""Share of the axis below which the name of a stage does not fit on a phone."""
LAST: Final = 0.35
"""The same for the last stage, beside which there is no room at all."""
STEPS_AXIS: Final = "optimizer steps, stages in a row"


class Drawn(NamedTuple):
    """A chart."""

    spec: Spec
    """Vega-Lite, without its numbers."""
    data: Mapping[str, Columns]
    """The numbers by the name that ``spec`` calls them."""
    numbers: Columns
    """What is drawn, as people want it in a spreadsheet."""


class Span(NamedTuple):
    """The part of the common axis that belongs to one stage."""

    stage: str
    label: str
    start: int
    """Steps of all stages before it."""
    end: int


class Mark(NamedTuple):
    """Something at one place of the axis: an evaluation, or a step at which something set in."""

    place: int
    label: str
    value: float | None = None
    """None for a rule from top to bottom."""
    lasting: bool = True
    """Whether it was still so at the end."""


class Level(NamedTuple):
    """A rule from side to side: what a curve is to be compared with."""

    label: str
    value: float


def spans(stages: Iterable[Stage]) -> list[Span]:
    """Stages one behind the other on one axis of steps.

    Stages of the same name, of several runs, share a place as long as the longest of them.
    """
    longest: dict[str, Stage] = {}
    for stage in stages:
        if stage.name not in longest or longest[stage.name].last_step < stage.last_step:
            longest[stage.name] = stage
    made, start = [], 0
    for stage in longest.values():
        estimator = stage.attributes.get("estimator")
        label = f"{stage.name} ({estimator})" if estimator else stage.name
        made.append(Span(stage.name, label, start, start + stage.last_step))
        start += stage.last_step
    return made


def curve_table(
    figure: Figure,
    lines: Mapping[str, Sequence[CurvePoint]],
    axis: Sequence[Span],
    smoothing: int,
) -> Columns:
    """Points of a figure with their place on the common axis and their smoothed values.

    Args:
        figure: Which metrics to take.
        lines: Points of any metrics by the run, or the runs, that they belong to.
        axis: Where each stage lies.
        smoothing: Values are averaged over this many points around each one.
    """
    places = {span.stage: span for span in axis}
    table: Columns = {
        name: [] for name in
        ("line", "stage", "place", "step", "metric", "series", "value", "smooth", "low", "high")
    }  # fmt: skip
    wanted = set(figure.metrics)
    width = 1 if figure.seldom else smoothing
    for line, points in lines.items():
        curves: dict[tuple[str, str], list[CurvePoint]] = {}
        for point in points:
            if point.name in wanted and point.stage in places:
                curves.setdefault((point.stage, point.name), []).append(point)
        for (stage, name), curve in curves.items():
            span = places[stage]
            values = [point.value for point in curve]
            table["line"] += [line] * len(curve)
            table["stage"] += [span.label] * len(curve)
            table["place"] += [span.start + point.step for point in curve]
            table["step"] += [point.step for point in curve]
            table["metric"] += [name] * len(curve)
            table["series"] += [figure.series.get(name)] * len(curve)
            table["value"] += values
            table["smooth"] += running_mean(values, width)
            table["low"] += running_mean([point.low for point in curve], width)
            table["high"] += running_mean([point.high for point in curve], width)
    return table


def running_mean(values: Sequence[float | None], width: int) -> list[float | None]:
    """Mean of the values around each one, ``width`` of them where there are so many.

    >>> running_mean([1.0, None, 3.0, 8.0], 3)
    [1.0, 2.0, 5.5, 5.5]
    """
    before, after = width // 2, (width - 1) // 2
    means: list[float | None] = []
    for place in range(len(values)):
        first, last = max(0, place - before), min(len(values), place + after + 1)
        # Window by window: differences of running sums would draw their rounding as a curve.
        there = [value for value in values[first:last] if value is not None]
        means.append(fmean(there) if there else None)
    return means


def curves(
    figure: Figure,
    table: Columns,
    axis: Sequence[Span],
    *,
    marks: Sequence[Mark] = (),
    levels: Sequence[Level] = (),
) -> Drawn:
    """A figure over all stages: thin for the values, thick for their running mean.

    One run: colours are series, or stages where there is one series; bands are the figure's.
    Several: colours are runs, dashes series; bands go from the lowest to the highest seed.
    """
    shown = _series_only(table)
    by, words = _told_apart(figure, shown, axis)
    colour: Spec = {
        "field": by, "type": "nominal",
        "scale": {"domain": words, "range": list(PALETTE[: len(words)])},
        "legend": None if by == "stage" else LEGEND,
    }  # fmt: skip
    several = by == "line"
    point: Spec = {"x": place_axis(axis), "color": colour}
    point["detail"] = [{"field": name, "type": "nominal"} for name in ("stage", "series", "line")]
    if several and len(figure.series) > 1:
        dashes = list(figure.series.values())
        point["strokeDash"] = {
            "field": "series", "type": "nominal", "legend": LEGEND,
            "scale": {"domain": dashes, "range": list(DASHES[: len(dashes)])},
        }  # fmt: skip
    height: Spec = {"title": figure.axis, "type": "quantitative"}
    if figure.tiny:
        height["axis"] = {"labelExpr": "datum.value == 0 ? '0' : format(datum.value, '~e')"}
    height["scale"] = {"domain": [0, 1]} if figure.share else {"zero": False}
    layers, data = _bands(figure, table, point, several=several)
    data |= {"points": shown}
    layers += borders(axis, data) + _levels(levels, data) + _marks(marks, data, height)
    if not several:
        layers.append(_line(point, {**height, "field": "value"}, 1, 0.3))
    layers.append(_line(point, {**height, "field": "smooth"}, 2.5, 1))
    layers.append(_spots(point, height, figure))
    rows = 0 if by == "stage" else -(-len(words) // LEGEND_COLUMNS)
    legends = (rows > 0) + ("strokeDash" in point) + ("dots" in data)
    height_of_all = HEIGHT + LEGEND_HEIGHT * legends + LEGEND_ROW * max(0, rows - 1)
    return Drawn({"layer": layers, "height": height_of_all}, data, table)


def _series_only(table: Columns) -> Columns:
    """Rows that are lines of their own, not ends of a band."""
    keep = [place for place, word in enumerate(table["series"]) if word is not None]
    return {name: [column[place] for place in keep] for name, column in table.items()}


def _told_apart(figure: Figure, table: Columns, axis: Sequence[Span]) -> tuple[str, list[str]]:
    """What colours stand for, and the words for it that occur."""
    lines = list(dict.fromkeys(table["line"]))
    if len(lines) > 1:
        return "line", lines
    by = "stage" if len(figure.series) == 1 else "series"
    words = [span.label for span in axis] if by == "stage" else list(figure.series.values())
    there = set(table[by])
    return by, [word for word in words if word in there]


def place_axis(axis: Sequence[Span]) -> Spec:
    """The common axis of steps."""
    end = max((span.end for span in axis), default=1)
    return {
        "field": "place", "type": "quantitative", "title": STEPS_AXIS,
        "scale": {"domain": [0, max(end, 1)], "nice": False},
        "axis": {"grid": False, "tickMinStep": 1},
    }  # fmt: skip


def _line(point: Spec, height: Spec, width: float, opacity: float) -> Spec:
    return {
        "data": {"name": "points"},
        "mark": {"type": "line", "strokeWidth": width, "opacity": opacity},
        "encoding": {**point, "y": height},
    }


def _spots(point: Spec, height: Spec, figure: Figure) -> Spec:
    """Where the pointer finds the numbers and what they mean."""
    said = (
        ("line", "run", None), ("stage", "stage", None), ("step", "step", None),
        ("series", "series", None), ("value", "value", ".4~g"),
        ("smooth", "running mean", ".4~g"), ("means", "what it is", None),
    )  # fmt: skip
    tooltip = [
        {"field": field, "title": title, "type": "quantitative" if form else "nominal"}
        | ({"format": form} if form else {})
        for field, title, form in said
    ]
    encoding = {**point, "y": {**height, "field": "smooth"}, "tooltip": tooltip}
    encoding.pop("strokeDash", None)
    return {
        "data": {"name": "points"},
        "transform": [{"calculate": json.dumps(figure.definition), "as": "means"}],
        "mark": {"type": "circle", "size": 60, "opacity": 0},
        "encoding": encoding,
    }


def _bands(
    figure: Figure, table: Columns, point: Spec, *, several: bool
) -> tuple[list[Spec], dict[str, Columns]]:
    """Bands between metrics of one run, or between the seeds of one recipe; smoothed as lines."""
    ends = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
    layer = {
        "mark": {"type": "area", "opacity": 0.18},
        "encoding": {**{k: v for k, v in point.items() if k != "strokeDash"}, **ends},
    }
    if any(low != high for low, high in zip(table["low"], table["high"], strict=True)):
        return [{"data": {"name": "points"}, **layer}], {}
    if several or not figure.bands:
        return [], {}
    smooth = {
        (table["metric"][row], table["stage"][row], table["place"][row]): table["smooth"][row]
        for row in range(len(table["metric"]))
    }
    band: Columns = {name: [] for name in ("line", "series", "stage", "place", "low", "high")}
    for row, metric in enumerate(table["metric"]):
        if metric not in figure.bands:
            continue
        where = (table["stage"][row], table["place"][row])
        low, high = (smooth.get((end, *where)) for end in figure.bands[metric])
        values = (table["line"][row], table["series"][row], *where, low, high)
        for name, value in zip(band, values, strict=True):
            band[name].append(value)
    return [{"data": {"name": "bands"}, **layer}], {"bands": band}


def borders(axis: Sequence[Span], data: dict[str, Columns]) -> list[Spec]:
    """A rule where a stage begins, and its name; in two rows where stages are too short for one."""
    whole = max((span.end for span in axis), default=0)
    crowded = any(span.end - span.start < CROWDED * whole for span in axis)
    data["stages"] = {
        "start": [span.start for span in axis],
        "label": [span.label for span in axis],
        "row": [place % 2 if crowded else 0 for place in range(len(axis))],
        "last": [span.start > (1 - LAST) * whole for span in axis],
    }
    place = {"field": "start", "type": "quantitative"}
    rule = {
        "data": {"name": "stages"},
        "transform": [{"filter": "datum.start > 0"}],
        "mark": {"type": "rule", "color": INK, "strokeDash": [3, 3]},
        "encoding": {"x": place},
    }
    names = [_names(place, row) for row in range(1 + crowded)]
    if any(data["stages"]["last"]):
        names.append(_names(None, data["stages"]["row"][-1]))
    return [rule, *names]


def _names(place: Spec | None, row: int) -> Spec:
    """Names of the stages of one row, where they begin; or of the last one, where it ends."""
    mark = {"type": "text", "align": "left", "dx": 4, "color": INK, "fontSize": 11}
    if place is None:
        mark |= {"align": "right", "dx": 0}
    return {
        "data": {"name": "stages"},
        "transform": [{"filter": f"datum.row == {row} && {'!' if place else ''}datum.last"}],
        "mark": {**mark, "dy": -8 - 13 * row},
        "encoding": {
            "x": place or {"value": "width"}, "y": {"value": 0}, "text": {"field": "label"}
        },
    }  # fmt: skip


def _levels(levels: Sequence[Level], data: dict[str, Columns]) -> list[Spec]:
    """Rules to compare with, each beside its name."""
    if not levels:
        return []
    data["levels"] = {"label": [x.label for x in levels], "level": [x.value for x in levels]}
    places = name_places([level.value for level in levels])
    data["level names"] = {
        "label": [
            level.label if place.beside else f"{level.label} {level.value:.2f}"
            for level, place in zip(levels, places, strict=True)
        ],
        "side": [place.side for place in places],
        "bottom": [place.bottom for place in places],
    }
    height = {"field": "level", "type": "quantitative"}
    tooltip = [{"field": "label", "type": "nominal"}, {**height, "format": ".3f"}]
    rule = {
        "data": {"name": "levels"},
        "mark": {"type": "rule", "color": INK, "strokeDash": [6, 4]},
        "encoding": {"y": height, "tooltip": tooltip},
    }
    names = [
        {
            "data": {"name": "level names"},
            "transform": [{"filter": f"datum.side == '{side}'"}],
            "mark": {
                "type": "text", "align": side, "baseline": "bottom", "dy": -2, "fontSize": 10,
                "dx": -8 if side == "right" else 2, "color": INK,
            },
            "encoding": {
                "x": {"value": "width" if side == "right" else 0},
                "y": {**height, "field": "bottom"}, "text": {"field": "label", "type": "nominal"},
            },
        }
        for side in sorted({place.side for place in places})
    ]  # fmt: skip
    return [rule, *names]


def _marks(marks: Sequence[Mark], data: dict[str, Columns], height: Spec) -> list[Spec]:
    """Diamonds for what was measured at a place, rules for what set in there."""
    layers: list[Spec] = []
    dots = [mark for mark in marks if mark.value is not None]
    rules = [mark for mark in marks if mark.value is None]
    for name, chosen in (("dots", dots), ("rules", rules)):
        if chosen:
            data[name] = {
                "at": [mark.place for mark in chosen], "label": [mark.label for mark in chosen],
                "measured": [mark.value for mark in chosen],
                "lasting": [mark.lasting for mark in chosen],
            }  # fmt: skip
    place = {"field": "at", "type": "quantitative"}
    said = [{"field": "label", "type": "nominal"}]
    if dots:
        shape = {
            "field": "kind", "type": "nominal", "legend": LEGEND,
            "scale": {"range": ["diamond", "triangle-up", "square", "circle"]},
        }  # fmt: skip
        layers.append(
            {
                "data": {"name": "dots"},
                "transform": [{"calculate": "split(datum.label, ' of ')[0]", "as": "kind"}],
                "mark": {"type": "point", "size": 90, "filled": True, "color": PALETTE[5]},
                "encoding": {
                    "x": place, "y": {**height, "field": "measured"}, "shape": shape,
                    "tooltip": [*said, {"field": "measured", "type": "quantitative",
                                        "format": ".3f"}],
                },
            }
        )  # fmt: skip
    if rules:
        whole = {"test": "datum.lasting", "value": [1, 0]}
        lasting = {"condition": whole, "value": [3, 4]}
        layers.append(
            {
                "data": {"name": "rules"},
                "mark": {"type": "rule", "color": PALETTE[5], "strokeWidth": 2},
                "encoding": {"x": place, "tooltip": said, "strokeDash": lasting},
            }
        )
    return layers
