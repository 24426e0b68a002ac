"""Intervals as charts: models beside each other on one axis. Pure."""

from collections.abc import Sequence
from typing import Any

from dashboard.charts import INK, PALETTE, Columns, Drawn, Spec
from services.views.comparisons import Estimate, Measured

SHARE_OF_RIGHT = "share of right completions"


def intervals(
    models: Sequence[Measured], estimates: Sequence[Estimate], level: int | None
) -> Drawn:
    """A dot for each model on the axis 0…1, and a line for its interval; in the models' order.

    Args:
        models: Those to show.
        estimates: Accuracy and interval of these and others.
        level: Of the problems; None for all levels together.
    """
    by_model = {row.evaluation: row for row in estimates if row.level == level}
    shown = [(model.model, by_model[model.id]) for model in models if model.id in by_model]
    numbers: Columns = {
        "model": [name for name, _ in shown],
        "accuracy": [row.mean for _, row in shown],
        "lower": [row.lower for _, row in shown],
        "upper": [row.upper for _, row in shown],
        "problems": [row.problems for _, row in shown],
    }
    return Drawn(_dots(numbers["model"]), {"models": numbers}, numbers)


def _dots(order: Sequence[str]) -> Spec:
    common = {
        "y": {"field": "model", "type": "nominal", "title": None, "sort": list(order),
              "axis": {"labelLimit": 160}},
        "tooltip": [
            {"field": "model", "type": "nominal"},
            {"field": "accuracy", "type": "quantitative", "format": ".3f"},
            {"field": "lower", "type": "quantitative", "title": "95 % from", "format": ".3f"},
            {"field": "upper", "type": "quantitative", "title": "95 % to", "format": ".3f"},
            {"field": "problems", "type": "quantitative"},
        ],
    }  # fmt: skip
    share = {"domain": [0, 1]}
    accuracy = {"field": "accuracy", "type": "quantitative", "scale": share}

    def layer(mark: Spec, **encoding: Any) -> Spec:
        return {"data": {"name": "models"}, "mark": mark, "encoding": {**common, **encoding}}

    return {
        "height": {"step": 28},
        "layer": [
            layer(
                {"type": "rule", "strokeWidth": 3, "color": PALETTE[0], "opacity": 0.55},
                x={"field": "lower", "type": "quantitative", "title": SHARE_OF_RIGHT,
                   "scale": share},
                x2={"field": "upper"},
            ),
            layer(
                {"type": "point", "filled": True, "size": 90, "color": PALETTE[0], "opacity": 1},
                x=accuracy,
            ),
            layer(
                {"type": "text", "dy": -11, "color": INK, "fontSize": 11},
                x=accuracy,
                text={"field": "accuracy", "type": "quantitative", "format": ".2f"},
            ),
        ],
    }  # fmt: skip
