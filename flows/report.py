"""What a pipeline says at its end, and the proof that a finished one has nothing left to do.

The report is written when the pipeline ends and names every artifact it rests on. Run again, the
same recipe finds it, checks that all of them are still there, and shows it without starting a flow.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.table import Table

from flows.identity import STAGES
from services.artifacts import read_manifest, write_atomically

if TYPE_CHECKING:
    from flows.pipeline import Pipeline

ORCHESTRATION_BAR = 0.10
"""The share of wall time that orchestration and tracking may take."""


class PipelineReport(BaseModel):
    """The end of a pipeline run."""

    run_id: str
    until: str | None
    """Last stage asked for; None is all of them."""
    outcomes: dict[str, str]
    """``finished`` or ``reused`` by stage."""
    artifacts: dict[str, str]
    """Folder of each stage's artifact."""
    digests: dict[str, str]
    """Digest of each stage's artifact."""
    table: dict[str, dict[str, float]]
    """Evaluation summaries by model."""
    decision: str
    """What was promoted, or why not."""
    export: str
    """Folder of the exported model, empty if there is none."""
    seconds: float
    working_seconds: dict[str, float]
    """Sampling, scoring, training, evaluating."""
    nothing_to_do: bool = False
    """Whether the pipeline was found finished."""

    @property
    def orchestration_share(self) -> float:
        """Share of the wall time that was not work."""
        return max(0.0, 1.0 - sum(self.working_seconds.values()) / max(self.seconds, 1e-9))


def report_path(home: Path, run_id: str) -> Path:
    """Where a run's report lies."""
    return home / "runs" / run_id / "report.json"


def make_report(run: "Pipeline") -> PipelineReport:
    """Write down how the run ended."""
    report = PipelineReport(
        run_id=run.run_id,
        until=run.until,
        outcomes=run.outcomes,
        artifacts={stage: str(folder) for stage, folder in run.folders.items()},
        digests=run.digests,
        table=run.measured,
        decision=run.decision,
        export=run.exported,
        seconds=run.clock.elapsed,
        working_seconds=run.clock.seconds,
    )
    write_report(run.home, report)
    return report


def write_report(home: Path, report: PipelineReport) -> None:
    """Keep the report where the next run of the same recipe looks for it."""
    write_atomically(report_path(home, report.run_id), report.model_dump_json(indent=2))


def finished_report(home: Path, run_id: str, until: str | None) -> PipelineReport | None:
    """The report of a run that has nothing left to do for this ``until``, else None."""
    path = report_path(home, run_id)
    if not path.is_file():
        return None
    try:
        report = PipelineReport.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # of another version: running the pipeline writes it anew
    if report.until is not None and (
        until is None or STAGES.index(report.until) < STAGES.index(until)
    ):
        return None
    if any(read_manifest(Path(folder)) is None for folder in report.artifacts.values()):
        return None
    return report.model_copy(update={"nothing_to_do": True})


def stage_table(table: Mapping[str, Mapping[str, float]]) -> Table:
    """The stage table for a terminal: a row per model, the columns of the paper's table 3."""
    columns = _columns(table)
    shown = Table(title="Held-out problems, every checkpoint", title_justify="left")
    shown.add_column("model")
    for header, _, _ in columns:
        shown.add_column(header, justify="right")
    for model, values in table.items():
        cells = [f"{values[name]:{form}}" if name in values else "–" for _, name, form in columns]
        shown.add_row(model, *cells)
    return shown


def _columns(table: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str, str]]:
    """Header, metric and format of every column that some model has a value for."""
    names = {name for values in table.values() for name in values}
    levels = sorted(name for name in names if name.startswith("pass@1/level_"))
    majority = sorted(name for name in names if name.startswith("cons@"))
    wanted = [
        ("pass@1", "pass@1", ".2f"),
        *((f"L{name.rpartition('_')[2]}", name, ".2f") for name in levels),
        *((name, name, ".2f") for name in majority),
        ("language", "language/consistency", ".2f"),
        ("right, tokens", "length/right", ".0f"),
        ("wrong, tokens", "length/wrong", ".0f"),
        ("reflective", "reflective/mean", ".2f"),
        ("gives up", "gives_up", ".2f"),
        ("false claims", "false_claims", ".2f"),
        ("helpful", "helpfulness", ".2f"),
        ("safe", "safety", ".2f"),
    ]
    return [column for column in wanted if column[1] in names]


def as_json(report: PipelineReport) -> dict[str, Any]:
    """The report as plain data, with the share that is a property."""
    plain: dict[str, Any] = json.loads(report.model_dump_json())
    return plain | {"orchestration_share": report.orchestration_share}
