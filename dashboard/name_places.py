"""Where the names of rules from side to side stand, so that all of them can be read."""

from collections.abc import Sequence
from typing import Final

Corner = tuple[str, bool]
"""The side, ``left`` or ``right``, and whether the name stands above its rule."""

CORNERS: Final[tuple[Corner, ...]] = (
    ("right", True), ("right", False), ("left", True), ("left", False)
)  # fmt: skip
NAME_HEIGHT: Final = 0.055
"""As a share of the axis."""


def name_places(values: Sequence[float]) -> list[Corner]:
    """For each rule the corner where its name meets the fewest other names and rules.

    Args:
        values: Where the rules are, on an axis from 0 to 1.

    >>> name_places([0.5, 0.51, 0.9])
    [('right', False), ('right', True), ('right', True)]
    """
    taken: list[tuple[str, float]] = []
    found: dict[int, Corner] = {}
    for place, value in sorted(enumerate(values), key=lambda each: each[1]):
        costs = []
        for side, above in CORNERS:
            low = value if above else value - NAME_HEIGHT
            met = sum(side == other and abs(low - start) < NAME_HEIGHT for other, start in taken)
            crossed = sum(low < other < low + NAME_HEIGHT for other in values)
            outside = low < 0 or low + NAME_HEIGHT > 1
            costs.append((met + crossed + outside, (side, above), low))
        _, corner, low = min(costs, key=lambda cost: cost[0])
        taken.append((corner[0], low))
        found[place] = corner
    return [found[place] for place in range(len(values))]
