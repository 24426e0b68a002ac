"""Progress for people: a bar per stage with its key numbers, or plain lines without a terminal."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SHOWN = {
    "reward/total": "reward",
    "accuracy": "accuracy",
    "length/mean": "length",
    "language/consistency": "language",
    "loss": "loss",
}
"""Metrics beside a bar, and what they are called there; the first four that a step has."""
LINE_SECONDS = 10.0
"""Without a terminal, at most one line in this time for each stage."""


class StageProgress:
    """Shows stages as they run; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>4.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._stage = ""
        self._total = 0
        self._last_line = 0.0

    def __enter__(self) -> "StageProgress":
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def begin(self, stage: str, total: int) -> None:
        """A stage starts; ``total`` counts its steps, 1 where it has none."""
        self._stage, self._total = stage, max(total, 1)
        self._bar = self.bars.add_task(stage, total=self._total, numbers="")
        self._last_line = 0.0

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Steps behind the stage and the metrics of the last one."""
        shown = [(label, values[name]) for name, label in SHOWN.items() if name in values][:4]
        numbers = "  ".join(f"{label} {value:.2f}" for label, value in shown)
        if self._bar is not None:
            self.bars.update(self._bar, completed=done, numbers=numbers)
        if not self.console.is_terminal and time.monotonic() - self._last_line > LINE_SECONDS:
            self.console.print(f"{self._stage}: step {done}/{self._total}  {numbers}")
            self._last_line = time.monotonic()

    def say(self, line: str) -> None:
        """A line above the bars."""
        self.bars.console.print(line, markup=False, highlight=False)

    def finish(self, note: str) -> None:
        """The stage is done."""
        if self._bar is not None:
            self.bars.update(self._bar, completed=self._total, numbers=note)
        if not self.console.is_terminal:
            self.console.print(f"{self._stage}: {note}")
