"""Results of a run: the evaluation of every model, what curation kept, what was promoted."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine, and_, func, select
from sqlalchemy.orm import aliased

from services.store.alarms import Alarms
from services.store.opening import reading
from services.store.schema import CuratedRows, Decisions, Evaluations, Stages
from services.types import DropReason

MODELS = (
    "base", "r1-zero", "dev1", "dev2", "dev3", "r1", "student", "student-base", "distill",
    "on-policy", "student-rl",
)  # fmt: skip
"""The order of the stage table; other models follow by name."""
MAX_ALARMS = 500


class Evaluation(NamedTuple):
    """One row of the stage table."""

    model: str
    summary: Mapping[str, float | None]
    """Columns by name, such as ``pass@1``, ``pass@1/level_5``, ``language/consistency``."""
    protocol: Mapping[str, object]
    """How it was measured."""
    created_at: datetime


class CurationCount(NamedTuple):
    """How many candidates of a data set ended one way."""

    reason: str
    """Why they were dropped; ``kept`` for those that were not."""
    source: str
    """Where they came from: digest of a checkpoint, or name of a written source."""
    rows: int


class Decision(NamedTuple):
    """What the gate said of one model."""

    model: str
    candidate_digest: str
    champion_digest: str
    """What it was compared with; empty if there was no champion."""
    promoted: bool
    reasons: list[str]
    note: str
    decided_at: datetime


class Outcome(NamedTuple):
    """What came of a run: the model that its gate looked at first, before what was distilled."""

    model: str
    promoted: bool
    summary: Mapping[str, float | None]
    """Its columns of the stage table; empty where it was not evaluated."""


class RaisedAlarm(NamedTuple):
    """What a guard, the monitor or a retraining wanted somebody to know."""

    at: datetime
    source: str
    """``guard``, ``monitor`` or ``retrain``."""
    name: str
    action: str
    """``warn``, ``pause`` or ``rollback``: what was done about it."""
    message: str
    run_id: str
    """Empty where it is about no run."""
    stage: str
    step: int
    value: float | None
    bound: float | None


def evaluation_table(engine: Engine, run_id: str) -> list[Evaluation]:
    """The stage table of a run: one row for each model that was evaluated."""
    columns = (
        Evaluations.model,
        Evaluations.summary,
        Evaluations.protocol,
        Evaluations.created_at,
        Evaluations.run_id,
    )
    with reading(engine) as connection:
        runs = runs_to_read(connection, run_id, "evaluation")
        found = connection.execute(select(*columns).where(Evaluations.run_id.in_(runs))).all()
    rows = {
        row.model: Evaluation(*row[:-1])
        for row in sorted(found, key=lambda row: row.run_id == run_id)
    }
    return sorted(rows.values(), key=lambda row: (model_order(row.model), row.model))


def decisions(engine: Engine, run_id: str) -> list[Decision]:
    """What the gate decided on models of a run, in order."""
    columns = [getattr(Decisions, name) for name in Decision._fields]
    with reading(engine) as connection:
        runs = runs_to_read(connection, run_id, "gate")
        query = select(*columns).where(Decisions.run_id.in_(runs)).order_by(Decisions.decided_at)
        return [Decision(*row) for row in connection.execute(query)]


def outcomes(engine: Engine, run_ids: Sequence[str]) -> dict[str, Outcome]:
    """What came of each of these runs; those whose gate has not spoken are left out."""
    gate, measured = aliased(Stages), aliased(Stages)
    gate_of, measured_of = aliased(Stages), aliased(Stages)  # who did their work
    query = (
        select(gate.run_id, Decisions.model, Decisions.promoted, Evaluations.summary)
        .outerjoin(gate_of, gate.source_id == gate_of.id)
        .join(Decisions, Decisions.run_id == func.coalesce(gate_of.run_id, gate.run_id))
        .outerjoin(measured, and_(measured.run_id == gate.run_id, measured.kind == "evaluation"))
        .outerjoin(measured_of, measured.source_id == measured_of.id)
        .outerjoin(
            Evaluations,
            and_(
                Evaluations.run_id == func.coalesce(measured_of.run_id, measured.run_id),
                Evaluations.model == Decisions.model,
            ),
        )
        .where(gate.kind == "gate", gate.run_id.in_(run_ids))
        .order_by(Decisions.decided_at.desc(), Decisions.id.desc())
    )
    with reading(engine) as connection:
        found = connection.execute(query).all()
    return {run: Outcome(model, promoted, summary or {}) for run, model, promoted, summary in found}


def alarms(engine: Engine, run_id: str | None = None, limit: int = 50) -> list[RaisedAlarm]:
    """The latest alarms, newest first; of one run if it is named."""
    columns = [getattr(Alarms, name) for name in RaisedAlarm._fields]
    query = select(*columns).order_by(Alarms.at.desc(), Alarms.id.desc())
    if run_id is not None:
        query = query.where(Alarms.run_id == run_id)
    with reading(engine) as connection:
        found = connection.execute(query.limit(min(limit, MAX_ALARMS)))
        return [RaisedAlarm(*row) for row in found]


def curation_funnel(engine: Engine, run_id: str, stage: str) -> list[CurationCount]:
    """What became of all candidates of a data set, in the order the reasons are tried."""
    query = (
        select(CuratedRows.reason, CuratedRows.source, func.count())
        .join(Stages, CuratedRows.stage_id == func.coalesce(Stages.source_id, Stages.id))
        .where(Stages.run_id == run_id, Stages.name == stage)
        .group_by(CuratedRows.reason, CuratedRows.source)
    )
    with reading(engine) as connection:
        counts = [CurationCount(*row) for row in connection.execute(query)]
    order = [reason.value for reason in DropReason]
    return sorted(counts, key=lambda count: (order.index(count.reason), count.source))


def runs_to_read(connection: Connection, run_id: str, kind: str) -> list[str]:
    """This run, and the runs it took stages of this kind from."""
    source = aliased(Stages)
    query = (
        select(source.run_id)
        .join(Stages, Stages.source_id == source.id)
        .where(Stages.run_id == run_id, Stages.kind == kind)
    )
    return [run_id, *connection.scalars(query)]


def evaluations_to_read(
    connection: Connection, run_id: str, model: str | None = None
) -> dict[str, int]:
    """The evaluation of each model that counts for a run: its own, else that it was taken from.

    Args:
        connection: On the store.
        run_id: The run.
        model: Only of this one.
    """
    runs = runs_to_read(connection, run_id, "evaluation")
    columns = select(Evaluations.model, Evaluations.id, Evaluations.run_id)
    query = columns.where(Evaluations.run_id.in_(runs))
    if model is not None:
        query = query.where(Evaluations.model == model)
    own_last = sorted(connection.execute(query).all(), key=lambda row: row.run_id == run_id)
    return {row.model: row.id for row in own_last}


def model_order(model: str) -> int:
    """Where a model stands in the stage table."""
    return MODELS.index(model) if model in MODELS else len(MODELS)
