"""When something sets in: the first step at which a curve leaves its beginning and stays away.

The rule, the same for every curve, because an eye finds an onset wherever it looks for one:

1. *Beginning*: the first tenth of the points, ``BEGINNING`` at least. Their mean is what was there
   before, their deviation how much it wavers.
2. *Seen*: at every later point, the mean of the last ``WINDOW`` points.
3. *Set in*: the first point from which what is seen stays beyond the mean of the beginning, in the
   direction that is asked for, for ``WINDOW`` points in a row, by more than three standard errors
   of a mean of ``WINDOW`` points and by more than a tenth of that mean or ``LEAST``, whichever is
   largest.

It says that something changed and when, not why. A curve too short for the rule has no onset.
"""

import math
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Final, NamedTuple

BEGINNING: Final = 5
WINDOW: Final = 5
ERRORS: Final = 3.0
SHARE: Final = 0.1
LEAST: Final = 0.01
"""In the unit of the curve: below, nobody would call it a change."""


class Onset(NamedTuple):
    """What the rule says of one curve."""

    step: int | None
    """Where it set in; None if it did not."""
    before: float
    """Mean of the beginning."""
    bound: float
    """What had to be passed."""
    last: float
    """Mean of the last ``WINDOW`` points."""
    lasted: bool
    """Whether it is still so at the end."""


def onset(points: Sequence[tuple[int, float | None]], *, rising: bool) -> Onset | None:
    """Apply the rule to a curve; None if it is too short.

    Args:
        points: Step and value, in the order of steps; values of None are left out.
        rising: Whether an increase is looked for; else a decrease.
    """
    known = [(step, value) for step, value in points if value is not None]
    beginning = max(BEGINNING, len(known) // 10)
    if len(known) < beginning + 2 * WINDOW:
        return None
    first = [value for _, value in known[:beginning]]
    before = fmean(first)
    margin = max(ERRORS * pstdev(first) / math.sqrt(WINDOW), SHARE * abs(before), LEAST)
    sign = 1 if rising else -1
    bound = before + sign * margin
    seen = [
        (step, fmean(value for _, value in known[place - WINDOW + 1 : place + 1]))
        for place, (step, _) in enumerate(known)
        if place >= beginning + WINDOW - 1
    ]
    beyond = [sign * (value - bound) > 0 for _, value in seen]
    found = next(
        (
            seen[place][0]
            for place in range(len(seen) - WINDOW + 1)
            if all(beyond[place : place + WINDOW])
        ),
        None,
    )
    return Onset(found, before, bound, seen[-1][1], found is not None and beyond[-1])
