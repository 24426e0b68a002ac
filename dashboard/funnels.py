"""Curation as a funnel: how many candidates are left after each reason to drop one. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import altair as alt
import pandas as pd

from dashboard.charts import DROPPED_COLOUR, KEPT_COLOUR
from services.types import DropReason
from services.views import CurationCount

ORDER: Final = (
    DropReason.UNSCORABLE,
    DropReason.WRONG,
    DropReason.FORMAT,
    DropReason.MIXED_LANGUAGE,
    DropReason.REPETITION,
    DropReason.UNREADABLE,
    DropReason.DUPLICATE,
    DropReason.QUOTA,
    DropReason.REVIEWER,
)
"""In the order in which ``services.curation`` tries them."""
LEFT, DROPPED = "left", "dropped here"


def funnel_table(counts: Sequence[CurationCount]) -> pd.DataFrame:
    """One row for each reason that dropped anything, and the candidates that were left after it."""
    rows = Counter[str]()
    for count in counts:
        rows[count.reason] += count.rows
    left = sum(rows.values())
    made = [("candidates", 0, left)]
    for reason in ORDER:
        if rows[reason.value]:
            left -= rows[reason.value]
            made.append((reason.value, rows[reason.value], left))
    return pd.DataFrame(made, columns=["reason", DROPPED, LEFT])


def funnel_chart(table: pd.DataFrame) -> alt.Chart:
    """Bars that grow shorter from reason to reason, with what each one took off."""
    reasons = list(table["reason"])
    long = table.melt("reason", [LEFT, DROPPED], "part", "rows")
    long["place"] = (long["part"] == DROPPED).astype(int)
    drawn: alt.Chart = (
        alt.Chart(long, height=alt.Step(26))
        .mark_bar()
        .encode(
            alt.X("rows:Q", title="candidates", axis=alt.Axis(tickMinStep=1, format=",d")),
            alt.Y("reason:N", title=None, sort=reasons, axis=alt.Axis(labelLimit=200)),
            alt.Color(
                "part:N",
                scale=alt.Scale(domain=[LEFT, DROPPED], range=[KEPT_COLOUR, DROPPED_COLOUR]),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            order="place:Q",
            tooltip=[
                alt.Tooltip("reason:N"),
                alt.Tooltip("part:N"),
                alt.Tooltip("rows:Q", title="candidates", format=",d"),
            ],
        )
    )
    return drawn
