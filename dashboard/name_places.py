"""Where the names of rules from side to side stand, so that all of them can be read."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

NAME_HEIGHT: Final = 0.09
"""As a share of the axis."""
SIDES: Final = ("right", "left")
FAR: Final = 0.5
"""What it costs to stand a whole height away from the own rule; a collision costs 1."""


class Place(NamedTuple):
    """Where a name stands."""

    side: str
    """``left`` or ``right``."""
    bottom: float
    """On the axis."""
    beside: bool
    """Whether it is right above or below its own rule."""


def name_places(values: Sequence[float]) -> list[Place]:
    """For each rule the place where its name meets the fewest other names and rules.

    Args:
        values: Where the rules are, on an axis from 0 to 1.

    >>> [place.side for place in name_places([0.5, 0.9])]
    ['right', 'right']
    """
    bottoms = [bottom for value in values for bottom in (value, value - NAME_HEIGHT)]
    found: dict[int, Place] = {}
    for number, value in sorted(enumerate(values), key=lambda each: each[1]):
        own = (value, value - NAME_HEIGHT)
        possible = [
            Place(side, bottom, bottom in own) for side in SIDES for bottom in (*own, *bottoms)
        ]
        found[number] = min(possible, key=lambda place: _cost(place, value, values, found.values()))
    return [found[number] for number in range(len(values))]


def _cost(place: Place, value: float, values: Sequence[float], taken: Iterable[Place]) -> float:
    top = place.bottom + NAME_HEIGHT
    met = sum(
        place.side == other.side and abs(place.bottom - other.bottom) < NAME_HEIGHT * 0.99
        for other in taken
    )
    crossed = sum(place.bottom < other < top for other in values)
    outside = place.bottom < 0 or top > 1
    distance = min(abs(place.bottom - value), abs(top - value)) / NAME_HEIGHT
    return met + crossed + outside + FAR * distance
