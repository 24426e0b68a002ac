"""The write side of the store: every method is one transaction and may be repeated.

A killed run does things again, so each write replaces what it wrote before: beginning a stage that
was begun, a step that was done, a data set that was curated. What is read for people is in
``services.views``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Engine, delete, insert, select, update

from services.store import rows
from services.store.opening import open_engine_to_write, storage_errors
from services.store.problems import problem_ids
from services.store.schema import (
    CuratedRows,
    Decisions,
    Evaluations,
    EvaluationSamples,
    HeldOutSamples,
    Rollouts,
    RolloutTexts,
    Runs,
    Stages,
    StepMetrics,
)
from services.types import (
    CuratedRow,
    EvaluationSample,
    Metrics,
    Rollout,
    StageState,
)

RunState = Literal["running", "finished", "stopped", "failed"]
"""``stopped`` is a run that was asked to go no further."""
StageKind = Literal["rl", "sft", "curation", "preference", "evaluation", "gate", "export"]


_TAKEN_OVER = ("kind", "key", "inputs", "attributes", "total_steps", "last_step", "output_path",
               "output_digest")  # fmt: skip
"""What a reused stage has in common with its source."""


class StageRef(NamedTuple):
    """Names one stage of one run."""

    run_id: str
    stage: str


def open_store(url: str) -> "Store":
    """Open a store for writing; one that is not there is created.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://…``.

    Raises:
        StoreError: The store cannot be written, or has another schema.
    """
    return Store(open_engine_to_write(url))


class Store:
    """What the flows tell about their runs."""

    def __init__(self, engine: Engine) -> None:
        """Write through ``engine``, which ``open_store`` makes."""
        self._engine = engine

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def begin_run(
        self, run_id: str, *, recipe_name: str, recipe_digest: str, seed: int, recipe_json: str
    ) -> None:
        """A run starts, or goes on."""
        facts = {
            "recipe_name": recipe_name,
            "recipe_digest": recipe_digest,
            "recipe": recipe_json,
            "seed": seed,
            "state": "running",
            "summary": "",
            "ended_at": None,
        }
        with self._writing() as connection:
            went_on = connection.execute(update(Runs).where(Runs.id == run_id).values(facts))
            if not went_on.rowcount:
                connection.execute(insert(Runs).values(id=run_id, started_at=_now(), **facts))

    def end_run(self, run_id: str, state: RunState, summary: str = "") -> None:
        """A run is over."""
        with self._writing() as connection:
            connection.execute(
                update(Runs)
                .where(Runs.id == run_id)
                .values(state=state, summary=summary, ended_at=_now())
            )

    def begin_stage(
        self,
        run_id: str,
        stage: str,
        *,
        kind: StageKind,
        key: str,
        inputs: Mapping[str, str],
        total_steps: int,
        attributes: Mapping[str, str],
    ) -> None:
        """A stage starts, or goes on.

        Args:
            run_id: The run it belongs to.
            stage: Its name, unique in the run.
            kind: What sort of work it is.
            key: Digest of settings and inputs; stages of the same key have the same result.
            inputs: What it is made from: role to digest, or role to the name of a stage.
            total_steps: How many steps it will have; 0 where it has none.
            attributes: What every curve of it should say, such as the estimator.
        """
        facts = {
            "kind": kind,
            "key": key,
            "state": "running",
            "source_id": None,
            "inputs": dict(inputs),
            "attributes": dict(attributes),
            "total_steps": total_steps,
            "output_path": "",
            "output_digest": "",
            "seconds": 0.0,
        }
        with self._writing() as connection:
            _put_stage(connection, run_id, stage, facts)

    def end_stage(
        self,
        run_id: str,
        stage: str,
        state: StageState,
        *,
        output_path: str = "",
        output_digest: str = "",
        seconds: float = 0.0,
    ) -> None:
        """A stage is over, well or badly.

        Args:
            run_id: The run it belongs to.
            stage: Its name.
            state: How it ended.
            output_path: Folder of its artifact.
            output_digest: Digest of its artifact; later stages name it among their inputs.
            seconds: Wall time it took.
        """
        with self._writing() as connection:
            connection.execute(
                update(Stages)
                .where(Stages.run_id == run_id, Stages.name == stage)
                .values(
                    state=state,
                    output_path=output_path,
                    output_digest=output_digest,
                    seconds=seconds,
                    seen_at=_now(),
                    ended_at=_now(),
                )
            )

    def reuse_stage(self, run_id: str, stage: str, *, source_run: str, key: str) -> None:
        """A stage takes the finished result of the same key from another run.

        Its curves, completions, data rows, evaluations and decisions are those of ``source_run``.
        A stage that did this work itself keeps its own.
        """
        same_work = (Stages.name == stage, Stages.key == key)
        own = select(Stages.id).where(
            Stages.run_id == run_id, *same_work, Stages.state == "finished"
        )
        source = select(Stages).where(Stages.run_id == source_run, *same_work)
        with self._writing() as connection:
            if connection.execute(own).first():
                return
            found = connection.execute(source).mappings().one()
            facts = {name: found[name] for name in _TAKEN_OVER} | {
                "state": "reused",
                "source_id": found["source_id"] or found["id"],
                "seconds": 0.0,
            }
            stage_id = _put_stage(connection, run_id, stage, facts)
            for table in (StepMetrics, Rollouts, HeldOutSamples, CuratedRows):
                connection.execute(delete(table).where(table.stage_id == stage_id))

    def finished_stage(self, key: str) -> StageRef | None:
        """A stage of any run that did this work already; the latest, if there are more."""
        found = (
            select(Stages.run_id, Stages.name)
            .where(Stages.key == key, Stages.state == "finished")
            .order_by(Stages.ended_at.desc())
            .limit(1)
        )
        with self._writing() as connection:
            row = connection.execute(found).first()
        return None if row is None else StageRef(row.run_id, row.name)

    def write_step(
        self,
        run_id: str,
        stage: str,
        metrics: Metrics,
        rollouts: Sequence[Rollout],
        held_out: Sequence[EvaluationSample] = (),
    ) -> None:
        """One training step: its numbers and every completion; replaces that step.

        Args:
            run_id: The run.
            stage: Its stage.
            metrics: Numbers of the step.
            rollouts: Completions that were trained on.
            held_out: Answers to held-out problems, where they were asked after this step.
        """
        step = metrics.step
        with self._writing() as connection:
            stage_id, last_step = _stage(connection, run_id, stage)
            if step <= last_step:
                _forget_steps(connection, stage_id, step, step)
            if metrics.values:
                connection.execute(insert(StepMetrics), rows.metric_rows(stage_id, metrics))
            if rollouts:
                ids = problem_ids(connection, (rollout.problem for rollout in rollouts))
                facts, texts = rows.rollout_rows(stage_id, step, rollouts, ids)
                connection.execute(insert(Rollouts), facts)
                connection.execute(insert(RolloutTexts), texts)
            if held_out:
                ids = problem_ids(connection, (sample.problem for sample in held_out))
                made = rows.sample_rows(held_out, ids, stage_id=stage_id, step=step)
                connection.execute(insert(HeldOutSamples), made)
            _saw_step(connection, stage_id, max(step, last_step))

    def truncate_steps(self, run_id: str, stage: str, after_step: int) -> None:
        """Forget all steps after ``after_step``: training goes on from there."""
        with self._writing() as connection:
            stage_id, last_step = _stage(connection, run_id, stage)
            _forget_steps(connection, stage_id, after_step + 1, last_step)
            _saw_step(connection, stage_id, min(after_step, last_step))

    def write_curation(self, run_id: str, stage: str, curated: Sequence[CuratedRow]) -> None:
        """All candidates of a data set, kept and dropped, in order."""
        with self._writing() as connection:
            stage_id, _ = _stage(connection, run_id, stage)
            connection.execute(delete(CuratedRows).where(CuratedRows.stage_id == stage_id))
            if not curated:
                return
            ids = problem_ids(connection, (row.problem for row in curated))
            connection.execute(
                insert(CuratedRows),
                [
                    rows.curated_row(stage_id, place, row, ids[row.problem])
                    for place, row in enumerate(curated)
                ],
            )

    def write_evaluation(
        self,
        run_id: str,
        model: str,
        summary: Mapping[str, float],
        protocol: Mapping[str, object],
        samples: Sequence[EvaluationSample],
    ) -> None:
        """What one model of a run showed, and every completion it showed it by."""
        with self._writing() as connection:
            _forget_model(connection, Evaluations, run_id, model)
            evaluation_id = connection.execute(
                insert(Evaluations)
                .values(
                    run_id=run_id,
                    model=model,
                    summary=rows.finite(summary),
                    protocol=dict(protocol),
                    created_at=_now(),
                )
                .returning(Evaluations.id)
            ).scalar_one()
            if not samples:
                return
            ids = problem_ids(connection, (sample.problem for sample in samples))
            made = rows.sample_rows(samples, ids, evaluation_id=evaluation_id)
            connection.execute(insert(EvaluationSamples), made)

    def write_decision(
        self,
        run_id: str,
        model: str,
        *,
        candidate_digest: str,
        champion_digest: str,
        promoted: bool,
        reasons: Sequence[str],
        note: str,
    ) -> None:
        """Whether a model of a run became champion, and why."""
        with self._writing() as connection:
            _forget_model(connection, Decisions, run_id, model)
            connection.execute(
                insert(Decisions).values(
                    run_id=run_id,
                    model=model,
                    candidate_digest=candidate_digest,
                    champion_digest=champion_digest,
                    promoted=promoted,
                    reasons=list(reasons),
                    note=note,
                    decided_at=_now(),
                )
            )

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with storage_errors(self._engine), self._engine.begin() as connection:
            yield connection


def _now() -> datetime:
    return datetime.now(UTC)


def _put_stage(connection: Connection, run_id: str, stage: str, facts: Mapping[str, Any]) -> int:
    """Update a stage, or insert it; its number."""
    now = _now()
    ended = now if facts["state"] == "reused" else None
    stage_id = connection.execute(
        update(Stages)
        .where(Stages.run_id == run_id, Stages.name == stage)
        .values(seen_at=now, ended_at=ended, **facts)
        .returning(Stages.id)
    ).scalar()
    if stage_id is None:
        row = {"last_step": 0, **facts, "run_id": run_id, "name": stage}
        stage_id = connection.execute(
            insert(Stages)
            .values(started_at=now, seen_at=now, ended_at=ended, **row)
            .returning(Stages.id)
        ).scalar_one()
    return stage_id


def _stage(connection: Connection, run_id: str, stage: str) -> tuple[int, int]:
    """Number and last step of a stage that was begun."""
    found = connection.execute(
        select(Stages.id, Stages.last_step).where(Stages.run_id == run_id, Stages.name == stage)
    ).one()
    return found.id, found.last_step


def _saw_step(connection: Connection, stage_id: int, last_step: int) -> None:
    connection.execute(
        update(Stages).where(Stages.id == stage_id).values(last_step=last_step, seen_at=_now())
    )


def _forget_steps(connection: Connection, stage_id: int, first: int, last: int) -> None:
    for table in (StepMetrics, Rollouts, HeldOutSamples):
        connection.execute(
            delete(table).where(table.stage_id == stage_id, table.step.between(first, last))
        )


def _forget_model(
    connection: Connection, table: type[Evaluations] | type[Decisions], run_id: str, model: str
) -> None:
    connection.execute(delete(table).where(table.run_id == run_id, table.model == model))
