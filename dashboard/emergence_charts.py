"""Charts of one page: words of reflection over the steps, and one question through training."""

from collections.abc import Sequence

from dashboard.charts import PALETTE, Columns, Drawn, Span, Spec, borders, place_axis


def words_over_steps(words: Sequence[str], counts: Columns, axis: Sequence[Span]) -> Drawn:
    """How often each word occurs in each stretch of the axis: one row a word, darker is more.

    Args:
        words: From top to bottom.
        counts: Columns ``word``, ``language``, ``stage``, ``step``, ``from``, ``to`` (places of
            the stretch on the axis) and ``count`` (mean per completion).
        axis: Where each stage lies.
    """
    data: dict[str, Columns] = {"counts": counts}
    place = place_axis(axis)
    cells: Spec = {
        "data": {"name": "counts"},
        "mark": {"type": "rect", "tooltip": True},
        "encoding": {
            "x": {**place, "field": "from"},
            "x2": {"field": "to"},
            "y": {"field": "word", "type": "nominal", "sort": list(words), "title": None},
            "color": {
                "field": "count", "type": "quantitative",
                "scale": {"scheme": "viridis", "type": "sqrt"},
                "legend": {"title": "per completion", "orient": "bottom", "gradientLength": 160},
            },
            "tooltip": [
                {"field": name, "type": "nominal"} for name in ("word", "language", "stage", "step")
            ] + [{"field": "count", "type": "quantitative", "format": ".3f"}],
        },
    }  # fmt: skip
    layers = [cells, *borders(axis, data)]
    return Drawn({"layer": layers, "height": {"step": 20}}, data, counts)


def history(where: Sequence[str], columns: Columns) -> Drawn:
    """One question through training: share of right answers and length, from left to right."""
    place = {
        "field": "where", "type": "nominal", "sort": list(where), "title": None,
        "axis": {"labelAngle": -30},
    }  # fmt: skip
    common: Spec = {"data": {"name": "answers"}}
    tooltip = [{"field": "where", "type": "nominal"}] + [
        {"field": name, "type": "quantitative", "format": ".3~g"}
        for name in ("right", "tokens", "reflective words", "samples")
    ]
    bars = {
        **common,
        "mark": {"type": "bar", "color": PALETTE[0], "opacity": 0.5},
        "encoding": {
            "x": place, "tooltip": tooltip,
            "y": {"field": "tokens", "type": "quantitative", "title": "tokens (bars)"},
        },
    }  # fmt: skip
    line = {
        **common,
        "mark": {"type": "line", "color": PALETTE[5], "point": {"color": PALETTE[5], "size": 60}},
        "encoding": {
            "x": place, "tooltip": tooltip,
            "y": {
                "field": "right", "type": "quantitative", "title": "right (line)",
                "scale": {"domain": [0, 1]},
            },
        },
    }  # fmt: skip
    spec = {"layer": [bars, line], "height": 220, "resolve": {"scale": {"y": "independent"}}}
    return Drawn(spec, {"answers": columns}, columns)
