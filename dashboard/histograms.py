"""How rewards are spread, as bars to pick from. Pure."""

from collections.abc import Sequence
from typing import Final

from dashboard.charts import INK, PALETTE, Columns, Drawn, Spec
from services.views import Bar

PICK: Final = "pick"
"""The selection: the ends of the bar that was clicked, by the names of ``ENDS``."""
ENDS: Final = ("from", "below")
CHOSEN, OTHER = "chosen", "left out"
HEIGHT: Final = 150


def histogram(
    bars: Sequence[Bar], part: str, least: float | None = None, below: float | None = None
) -> Drawn:
    """A bar for each stretch of the reward; those that a filter leaves out are grey.

    Args:
        bars: From the lowest on.
        part: What the horizontal axis shows.
        least: The filter's lower bound.
        below: And its upper one.
    """
    numbers: Columns = {
        ENDS[0]: [bar.lower for bar in bars],
        ENDS[1]: [bar.upper for bar in bars],
        "completions": [bar.completions for bar in bars],
        "filter": [CHOSEN if _inside(bar, least, below) else OTHER for bar in bars],
    }
    return Drawn(_bars(part), {"bars": numbers}, numbers)


def _inside(bar: Bar, least: float | None, below: float | None) -> bool:
    """Whether any of a bar is within the bounds."""
    return (least is None or bar.upper > least) and (below is None or bar.lower < below)


def _bars(part: str) -> Spec:
    lower, upper = ENDS
    return {
        "height": HEIGHT,
        "layer": [
            {
                "data": {"name": "bars"},
                "params": [{"name": PICK, "select": {"type": "point", "fields": list(ENDS)}}],
                "mark": {"type": "bar", "cursor": "pointer"},
                "encoding": {
                    "x": {"field": lower, "bin": "binned", "type": "quantitative", "title": part},
                    "x2": {"field": upper},
                    "y": {"field": "completions", "type": "quantitative",
                          "axis": {"tickMinStep": 1, "tickCount": 3, "format": ",d"}},
                    "color": {"field": "filter", "type": "nominal", "legend": None,
                              "scale": {"domain": [CHOSEN, OTHER], "range": [PALETTE[0], INK]}},
                    "tooltip": [
                        {"field": lower, "type": "quantitative", "format": "~g"},
                        {"field": upper, "type": "quantitative", "format": "~g"},
                        {"field": "completions", "type": "quantitative", "format": ",d"},
                    ],
                },
            }
        ],
    }  # fmt: skip
