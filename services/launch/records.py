"""What a training process tells the pipeline's: one JSON object a line, appended to a file.

A file and not a pipe, because launchers close what they inherit and hosts share storage anyway.
Only whole lines are read; numbers come back as they were, NaN included.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from services.training.guards import Finding
from services.training.job import StepRecorder
from services.types import EvaluationSample, Metrics, Rollout

POLL_SECONDS: Final = 0.05
_ROLLOUT: TypeAdapter[Rollout] = TypeAdapter(Rollout)
_SAMPLE: TypeAdapter[EvaluationSample] = TypeAdapter(EvaluationSample)


class RecordWriter:
    """A recorder that writes to a file; without a path, to nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def resumed(self, step: int) -> None:
        """Training goes on after ``step``."""
        self._write({"resumed": step})

    def step(
        self,
        metrics: Metrics,
        rollouts: Sequence[Rollout] = (),
        held_out: Sequence[EvaluationSample] = (),
    ) -> None:
        """One step is done."""
        self._write(
            {
                "step": metrics.step,
                "values": dict(metrics.values),
                "rollouts": [_ROLLOUT.dump_python(rollout) for rollout in rollouts],
                "held_out": [_SAMPLE.dump_python(sample) for sample in held_out],
            }
        )

    def alarm(self, step: int, finding: Finding) -> None:
        """A guard has tripped at a step."""
        self._write({"alarm": step, "finding": asdict(finding)})

    def worked(self, seconds: Mapping[str, float]) -> None:
        """Where the time went, at the end."""
        self._write({"worked": dict(seconds)})

    def _write(self, record: Mapping[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


def follow(path: Path, ended: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Records as they are written, until the writers have ended and all is read."""
    with path.open(encoding="utf-8", newline="\n") as file:
        part = ""
        while True:
            over = ended()  # asked first: what was written before the end is still read
            part += file.read()
            *lines, part = part.split("\n")
            yield from map(json.loads, lines)
            if not lines:
                if over:
                    return
                time.sleep(POLL_SECONDS)


def retell(
    record: Mapping[str, Any], recorder: StepRecorder, worked: Callable[[str, float], None]
) -> None:
    """Tell a recorder what a record says."""
    if "resumed" in record:
        recorder.resumed(int(record["resumed"]))
    elif "step" in record:
        rollouts = [_ROLLOUT.validate_python(row) for row in record["rollouts"]]
        held_out = [_SAMPLE.validate_python(row) for row in record.get("held_out", [])]
        recorder.step(Metrics(int(record["step"]), record["values"]), rollouts, held_out)
    elif "alarm" in record:
        recorder.alarm(int(record["alarm"]), Finding(**record["finding"]))
    elif "worked" in record:
        for work, seconds in record["worked"].items():
            worked(work, seconds)
