"""Curation as a funnel: how many candidates are left after each reason to drop one. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from dashboard.charts import DROPPED_COLOUR, KEPT_COLOUR, Columns, Drawn, Spec
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


def funnel(counts: Sequence[CurationCount]) -> Drawn:
    """Bars that grow shorter from reason to reason, with what each one took off.

    Its numbers have one row for each reason that dropped anything, and the candidates that were
    left after it.
    """
    rows = Counter[str]()
    for count in counts:
        rows[count.reason] += count.rows
    left = sum(rows.values())
    numbers: Columns = {"reason": ["candidates"], DROPPED: [0], LEFT: [left]}
    for reason in ORDER:
        if rows[reason.value]:
            left -= rows[reason.value]
            for name, value in zip(numbers, (reason.value, rows[reason.value], left), strict=True):
                numbers[name].append(value)
    reasons = numbers["reason"]
    bars: Columns = {
        "reason": [*reasons, *reasons],
        "part": [LEFT] * len(reasons) + [DROPPED] * len(reasons),
        "rows": [*numbers[LEFT], *numbers[DROPPED]],
        "place": [0] * len(reasons) + [1] * len(reasons),
    }
    return Drawn(_bars(reasons), {"bars": bars}, numbers)


def _bars(reasons: Sequence[str]) -> Spec:
    colours = {"domain": [LEFT, DROPPED], "range": [KEPT_COLOUR, DROPPED_COLOUR]}
    return {
        "height": {"step": 26},
        "layer": [
            {
                "data": {"name": "bars"},
                "mark": "bar",
                "encoding": {
                    "x": {"field": "rows", "type": "quantitative", "title": "candidates",
                          "axis": {"tickMinStep": 1, "format": ",d"}},
                    "y": {"field": "reason", "type": "nominal", "title": None,
                          "sort": list(reasons), "axis": {"labelLimit": 200}},
                    "color": {"field": "part", "type": "nominal", "scale": colours,
                              "legend": {"title": None, "orient": "bottom"}},
                    "order": {"field": "place", "type": "quantitative"},
                    "tooltip": [
                        {"field": "reason", "type": "nominal"},
                        {"field": "part", "type": "nominal"},
                        {"field": "rows", "type": "quantitative", "title": "candidates",
                         "format": ",d"},
                    ],
                },
            }
        ],
    }  # fmt: skip
