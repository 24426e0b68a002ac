"""Running a recipe from a program or the command line, with a server or without one.

What can be known without Prefect and torch is found out before they are loaded: a finished
pipeline, a stage that does not exist, a problem file that is not there.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.environment import home_folder, prepare_environment
from flows.identity import require_stages
from flows.report import PipelineReport, finished_report, write_report
from services.config import Recipe
from services.recipes import run_id_of
from services.tasks.pool import NOW
from services.tasks.sources import require_problems


def run_pipeline(
    recipe: Recipe,
    *,
    home: Path | None = None,
    until: str | None = None,
    start: str | None = None,
    started: float | None = None,
) -> PipelineReport:
    """Run a recipe, or go on where it stopped.

    Args:
        recipe: What to run.
        home: State folder; by default ``R1_HOME``.
        until: Last stage to run.
        start: First stage to run again although its result is there.
        started: ``time.perf_counter()`` of the moment the wall time counts from; by default now.
    """
    started = time.perf_counter() if started is None else started
    require_stages(until, start)
    folder = home_folder(home)
    prepare_environment(folder)
    if recipe.problems.pool == NOW:
        recipe = _with_snapshot(recipe, folder)
    if start is None:
        done = finished_report(folder, run_id_of(recipe), until)
        if done is not None:
            return done
    require_problems(recipe.problems)

    from flows.r1 import r1
    from services.training.adapters import require_adapters
    from services.training.machine import prepare_machine

    require_adapters(recipe)
    prepare_machine(recipe.engine)
    with heartbeats_if_watched():
        report = r1(recipe, until, start)
    report = report.model_copy(update={"seconds": time.perf_counter() - started})
    write_report(folder, report)
    return report


@contextmanager
def heartbeats_if_watched() -> Iterator[None]:
    """Without a server nobody watches heartbeats, and waiting for them costs a second per flow."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    quiet = {} if PREFECT_API_URL.value() else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings(quiet):
        yield


def _with_snapshot(recipe: Recipe, home: Path) -> Recipe:
    """The recipe with the pool as it is now, which is part of the run's name."""
    from services.pool import open_pool
    from services.store import store_url

    return open_pool(store_url()).pinned(recipe, home)
