"""Curves: metrics of training steps, thinned to what a chart can show, of one run or of many.

Thinning and the bands between seeds are computed by the database, so that no more rows come out of
it than a chart has points.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, func, select

from services.artifacts import digest_of
from services.store.opening import reading
from services.store.schema import Runs, Stages, StepMetrics

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
    low: float | None = None
    """Of several runs, the lowest; ``value`` is their mean then."""
    high: float | None = None


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


def seed_curves(
    engine: Engine,
    run_ids: Sequence[str],
    stages: Sequence[str],
    names: Sequence[str],
    max_points: int = MAX_POINTS,
) -> list[CurvePoint]:
    """The same of several runs as one: mean, lowest and highest at every step that any has.

    Args:
        engine: Of ``open_views``.
        run_ids: The runs; they are weighted alike.
        stages: Names of their stages.
        names: Names of metrics.
        max_points: Longer curves are thinned by averaging each run's steps first.
    """
    points: list[CurvePoint] = []
    with reading(engine) as connection:
        sources: dict[str, list[tuple[int, int]]] = {}
        for run_id in run_ids:
            for stage, stage_id, last_step in _sources(connection, run_id, stages):
                sources.setdefault(stage, []).append((stage_id, last_step))
        for stage, found in sources.items():
            width = 1 + max(last_step for _, last_step in found) // max_points
            ids = list({stage_id for stage_id, _ in found})
            points += _bands(connection, stage, ids, names, width)
    return points


def same_recipe(engine: Engine, run_ids: Sequence[str]) -> dict[str, str]:
    """For each run a digest of its recipe without the seed: runs that differ in nothing else."""
    query = select(Runs.id, Runs.recipe).where(Runs.id.in_(run_ids))
    with reading(engine) as connection:
        found = {run_id: json.loads(recipe) for run_id, recipe in connection.execute(query)}
    return {
        run_id: digest_of({name: value for name, value in recipe.items() if name != "seed"})
        for run_id, recipe in found.items()
    }


def metric_names(engine: Engine, run_id: str, stages: Sequence[str]) -> list[str]:
    """Names of all metrics that some stages of a run have, sorted."""
    names: set[str] = set()
    with reading(engine) as connection:
        for _, stage_id, _ in _sources(connection, run_id, stages):
            names.update(_names(connection, stage_id))
    return sorted(names)


def _names(connection: Connection, stage_id: int) -> list[str]:
    """Names of a stage's metrics, from one to the next: it has many more numbers than names."""
    names: list[str] = []
    while True:
        query = select(func.min(StepMetrics.name)).where(StepMetrics.stage_id == stage_id)
        if names:
            query = query.where(StepMetrics.name > names[-1])
        found = connection.execute(query).scalar()
        if found is None:
            return names
        names.append(found)


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


def _bands(
    connection: Connection, stage: str, stage_ids: list[int], names: Sequence[str], width: int
) -> list[CurvePoint]:
    """Every run's mean of each few steps, then over the runs."""
    bucket = (StepMetrics.step // width).label("bucket")
    each = (
        select(
            StepMetrics.name,
            bucket,
            func.max(StepMetrics.step).label("step"),
            func.avg(StepMetrics.value).label("value"),
        )
        .where(StepMetrics.stage_id.in_(stage_ids), StepMetrics.name.in_(names))
        .group_by(StepMetrics.stage_id, StepMetrics.name, bucket)
        .subquery()
    )
    value = each.c.value
    query = (
        select(
            each.c.name, func.max(each.c.step), func.avg(value), func.min(value), func.max(value)
        )
        .group_by(each.c.name, each.c.bucket)
        .order_by(each.c.name, each.c.bucket)
    )
    return [CurvePoint(stage, *row) for row in connection.execute(query)]
