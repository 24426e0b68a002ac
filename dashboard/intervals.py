"""Intervals as charts: models beside each other on one axis. Pure."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from dashboard.charts import INK, PALETTE
from services.views.comparisons import Estimate, Measured


def interval_table(
    models: Sequence[Measured], estimates: Sequence[Estimate], level: int | None
) -> pd.DataFrame:
    """Accuracy and interval of every model at one level, or over all of them."""
    names = {model.id: model.model for model in models}
    rows = [
        (names[row.evaluation], row.mean, row.lower, row.upper, row.problems)
        for row in estimates
        if row.level == level and row.evaluation in names
    ]
    return pd.DataFrame(rows, columns=["model", "accuracy", "lower", "upper", "problems"])


def interval_chart(table: pd.DataFrame, title: str) -> alt.LayerChart | alt.FacetChart:
    """A dot for each model on the axis 0…1, and a line for its interval."""
    order = list(table["model"])
    base = alt.Chart(table, height=alt.Step(28)).encode(
        alt.Y("model:N", sort=order, title=None, axis=alt.Axis(labelLimit=160)),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("accuracy:Q", format=".3f"),
            alt.Tooltip("lower:Q", title="95 % from", format=".3f"),
            alt.Tooltip("upper:Q", title="95 % to", format=".3f"),
            alt.Tooltip("problems:Q"),
        ],
    )
    share = alt.Scale(domain=[0, 1])
    lines = base.mark_rule(strokeWidth=3, color=PALETTE[0], opacity=0.55).encode(
        alt.X("lower:Q", title=title, scale=share), alt.X2("upper:Q")
    )
    dots = base.mark_point(filled=True, size=90, color=PALETTE[0], opacity=1).encode(
        alt.X("accuracy:Q", scale=share)
    )
    words = base.mark_text(dy=-11, color=INK, fontSize=11).encode(
        alt.X("accuracy:Q", scale=share), alt.Text("accuracy:Q", format=".2f")
    )
    return alt.layer(lines, dots, words)
