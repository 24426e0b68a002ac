"""Where the time goes: work against orchestration.

Sampling, scoring, training and evaluating are the work. What a pipeline spends beyond them is
orchestration and tracking, and its share is printed at the end.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Work = Literal["sampling", "scoring", "training", "evaluating"]


class WorkClock:
    """Adds up seconds by kind of work; measurements may not overlap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def measure(self, work: Work) -> Iterator[None]:
        """Count the time of the block as ``work``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(work, time.perf_counter() - started)

    def add(self, work: str, seconds: float) -> None:
        """Count time that was measured elsewhere, as by a process of ours."""
        self.seconds[work] = self.seconds.get(work, 0.0) + seconds

    @property
    def working(self) -> float:
        """Seconds of work so far."""
        return sum(self.seconds.values())

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._started
