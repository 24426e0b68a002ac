"""Curves: metrics of training steps, thinned to what a chart can show."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select

from services.store.opening import reading
from services.store.schema import Stages, StepMetrics

MAX_POINTS = 1000
"""Points of one curve; more cannot be told apart on a screen."""


class CurvePoint(NamedTuple):
    """One number of one step, or the mean of a few steps in a row."""

    stage: str
    name: str
    step: int
    """The last step that it stands for."""
    value: float | None
    """None where no number of these steps was finite."""


def training_curves(
    engine: Engine,
    run_id: str,
    stages: Sequence[str],
    names: Sequence[str],
    max_points: int = MAX_POINTS,
) -> list[CurvePoint]:
    """Metrics of some stages of a run, by stage, name and step.

    Args:
        engine: Of ``open_views``.
        run_id: The run.
        stages: Names of its stages; those that have no steps yet are left out.
        names: Names of metrics; those that a stage does not have are left out.
        max_points: Longer curves are thinned by averaging as few steps as need be.
    """
    with reading(engine) as connection:
        return [
            point
            for stage, stage_id, last_step in _sources(connection, run_id, stages)
            for point in _curves(connection, stage, stage_id, names, 1 + last_step // max_points)
        ]


def metric_names(engine: Engine, run_id: str, stages: Sequence[str]) -> list[str]:
    """Names of all metrics that some stages of a run have, sorted."""
    with reading(engine) as connection:
        ids = [stage_id for _, stage_id, _ in _sources(connection, run_id, stages)]
        query = select(StepMetrics.name).where(StepMetrics.stage_id.in_(ids)).distinct()
        return sorted(connection.scalars(query))


def _sources(
    connection: Connection, run_id: str, stages: Sequence[str]
) -> list[tuple[str, int, int]]:
    """Name, number of the stage whose rows count, and last step; in the order stages began."""
    query = (
        select(Stages.name, func.coalesce(Stages.source_id, Stages.id), Stages.last_step)
        .where(Stages.run_id == run_id, Stages.name.in_(stages))
        .order_by(Stages.id)
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(query)]


def _curves(
    connection: Connection, stage: str, stage_id: int, names: Sequence[str], width: int
) -> list[CurvePoint]:
    chosen = (StepMetrics.stage_id == stage_id, StepMetrics.name.in_(names))
    query = (
        select(StepMetrics.name, StepMetrics.step, StepMetrics.value)
        .where(*chosen)
        .order_by(StepMetrics.name, StepMetrics.step)
    )
    if width > 1:
        bucket = StepMetrics.step // width
        query = (
            select(StepMetrics.name, func.max(StepMetrics.step), func.avg(StepMetrics.value))
            .where(*chosen)
            .group_by(StepMetrics.name, bucket)
            .order_by(StepMetrics.name, bucket)
        )
    return [CurvePoint(stage, *row) for row in connection.execute(query)]
