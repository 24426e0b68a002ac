"""Runs and their stages: what there is, how far it is, and what was made from what."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, RowMapping, Select, func, or_, select
from sqlalchemy.orm import aliased

from services.errors import StoreError
from services.store.opening import reading
from services.store.schema import Runs, Stages

MAX_RUNS = 500
DONE = ("finished", "reused")
"""States of a stage whose result is there."""


class Run(NamedTuple):
    """One pipeline."""

    id: str
    recipe_name: str
    recipe_digest: str
    seed: int
    state: str
    """``running``, ``finished``, ``stopped`` or ``failed``."""
    summary: str
    started_at: datetime
    ended_at: datetime | None
    seen_at: datetime
    """When it last wrote anything: a killed run stays ``running`` but grows silent."""
    stages: int
    """How many stages it has begun."""
    stages_done: int
    """How many of those are finished or taken from another run."""

    @property
    def silent_seconds(self) -> float:
        """Seconds since it last wrote anything."""
        return (datetime.now(UTC) - self.seen_at).total_seconds()


class Stage(NamedTuple):
    """One stage of a run."""

    name: str
    kind: str
    state: str
    """``running``, ``finished``, ``failed`` or ``reused``; what a run that ended left running is
    failed."""
    key: str
    source_run: str
    """The run that did the work, where this one only took its result; else empty."""
    inputs: Mapping[str, str]
    """What it was made from: role to digest, or role to the name of a stage."""
    attributes: Mapping[str, str]
    last_step: int
    total_steps: int
    """At most 1 where the stage has no steps."""
    output_path: str
    output_digest: str
    seconds: float
    """Wall time; of a stage that is running, the time since it began."""
    seen_at: datetime

    @property
    def progress(self) -> float | None:
        """Share of it that is done, 0…1; None while a stage without steps runs."""
        if self.state in DONE:
            return 1.0
        return min(1.0, self.last_step / self.total_steps) if self.total_steps > 1 else None


class RunOverview(NamedTuple):
    """A run and its stages in the order they began."""

    run: Run
    stages: list[Stage]


def list_runs(
    engine: Engine, limit: int = 100, offset: int = 0, *, also: Collection[str] = ()
) -> list[Run]:
    """The latest runs, newest first.

    Args:
        engine: The store.
        limit: How many.
        offset: How many of the newest are left out.
        also: Ids of older runs that are wanted, too; those that do not exist are left out.
    """
    newest_first = (Runs.started_at.desc(), Runs.id)
    latest = select(Runs.id).order_by(*newest_first).limit(min(limit, MAX_RUNS)).offset(offset)
    wanted = or_(Runs.id.in_(latest), Runs.id.in_(list(also)[:MAX_RUNS]))
    with reading(engine) as connection:
        found = connection.execute(_runs().where(wanted).order_by(*newest_first)).mappings()
        return [_run(row) for row in found]


def count_runs(engine: Engine) -> int:
    """How many runs there are."""
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(Runs)).scalar_one()


def run_overview(engine: Engine, run_id: str) -> RunOverview:
    """One run with all of its stages.

    Raises:
        StoreError: There is no such run.
    """
    with reading(engine) as connection:
        found = connection.execute(_runs().where(Runs.id == run_id)).mappings().first()
        if found is None:
            raise StoreError(f"there is no run {run_id!r}", "See r1 runs for those there are")
        run, stages = _run(found), _stages(connection, run_id)
    if run.state != "running":
        stages = [s._replace(state="failed") if s.state == "running" else s for s in stages]
    return RunOverview(run, stages)


def _runs() -> Select[Any]:
    done = func.count(Stages.id).filter(Stages.state.in_(DONE))
    return (
        select(
            *Runs.__table__.columns,
            func.count(Stages.id).label("stages"),
            done.label("stages_done"),
            func.max(Stages.seen_at, type_=Stages.seen_at.type).label("seen_at"),
        )
        .outerjoin(Stages, Stages.run_id == Runs.id)
        .group_by(Runs.id)
    )


def _run(row: RowMapping) -> Run:
    fields = {name: row[name] for name in Run._fields}
    moments = (fields["started_at"], fields["ended_at"], fields["seen_at"])
    fields["seen_at"] = max(moment for moment in moments if moment is not None)
    return Run(**fields)


def _stages(connection: Connection, run_id: str) -> list[Stage]:
    source = aliased(Stages)
    query = (
        select(Stages, source.run_id.label("source_run"))
        .outerjoin(source, Stages.source_id == source.id)
        .where(Stages.run_id == run_id)
        .order_by(Stages.id)
    )
    return [_stage(row) for row in connection.execute(query).mappings()]


def _stage(fields: RowMapping) -> Stage:
    seconds = fields["seconds"]
    if fields["state"] == "running":
        seconds = (fields["seen_at"] - fields["started_at"]).total_seconds()
    values = {name: fields[name] for name in Stage._fields if name in fields}
    return Stage(**values | {"source_run": fields["source_run"] or "", "seconds": seconds})
