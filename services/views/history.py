"""The same question through training: its answers at the steps it was asked, and by every model.

A question may come up again and again while one stage trains (a finite data set), and the held-out
questions are asked of every model of a run; both histories are read here. Overviews are counted by
the database; texts are fetched one answer at a time.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, Label, and_, case, func, select

from services.store.opening import reading
from services.store.schema import (
    EvaluationSamples,
    Graded,
    HeldOutSamples,
    Problems,
    Rollouts,
    RolloutTexts,
    Stages,
)
from services.types import Verdict
from services.views.results import evaluations_to_read, model_order

MAX_QUESTIONS = 100
MAX_STEPS = 200
"""Steps of one question at most; more often it is not asked, or nobody looks at all of them."""


class Question(NamedTuple):
    """A problem that was asked more than once."""

    problem: str
    """The id its source gave it."""
    question: str
    language: str
    level: int
    times: int
    """At how many steps it was asked, or of how many models."""


class Answers(NamedTuple):
    """How one question was answered at one step, or by one model; all samples together."""

    model: str
    """Empty at a step of training."""
    step: int
    """0 for a model."""
    samples: int
    right: float
    """Share of right answers."""
    mean_tokens: float
    reflective_words: float
    """Mean per answer."""


class Answer(NamedTuple):
    """One answer to it."""

    text: str
    """As the model wrote it. Untrusted: show it as text, never as Markdown or HTML."""
    verdict: str
    reason: str
    length_tokens: int
    reflective_words: int
    language_share: float
    gave_up: bool


def repeated_questions(engine: Engine, run_id: str, stage: str, limit: int = 50) -> list[Question]:
    """Problems that a stage was asked at more than one step, the most frequent first.

    Held-out problems that it was watched by, if there are any; else those of its training.
    """
    for table in (HeldOutSamples, Rollouts):
        times = func.count(table.step.distinct())
        asked = (
            select(table.problem_id, times.label("times"))
            .where(table.stage_id == _source(run_id, stage))
            .group_by(table.problem_id)
            .having(func.min(table.step) < func.max(table.step))
            .order_by(times.desc(), table.problem_id)
            .limit(min(limit, MAX_QUESTIONS))
            .subquery()
        )
        if found := _questions(engine, asked):
            return found
    return []


def held_out_questions(engine: Engine, run_id: str, limit: int = 100) -> list[Question]:
    """Problems that more than one model of a run was asked, the hardest levels first."""
    with reading(engine) as connection:
        ids = list(evaluations_to_read(connection, run_id).values())
    times = func.count(EvaluationSamples.evaluation_id.distinct())
    asked = (
        select(EvaluationSamples.problem_id, times.label("times"))
        .join(Problems, Problems.id == EvaluationSamples.problem_id)
        .where(EvaluationSamples.evaluation_id.in_(ids), Problems.kind != "general")
        .group_by(EvaluationSamples.problem_id, Problems.level)
        .having(times > 1)
        .order_by(Problems.level.desc(), EvaluationSamples.problem_id)
        .limit(min(limit, MAX_QUESTIONS))
        .subquery()
    )
    return _questions(engine, asked)


def answers_by_step(engine: Engine, run_id: str, stage: str, problem: str) -> list[Answers]:
    """How a stage answered a question at every step it was asked, the first ``MAX_STEPS``."""
    for table in (HeldOutSamples, Rollouts):
        query = (
            select(table.step, *_shares(table))
            .where(table.stage_id == _source(run_id, stage), _is(table.problem_id, problem))
            .group_by(table.step)
            .order_by(table.step)
            .limit(MAX_STEPS)
        )
        with reading(engine) as connection:
            if found := [Answers("", *row) for row in connection.execute(query)]:
                return found
    return []


def answers_by_model(engine: Engine, run_id: str, problem: str) -> list[Answers]:
    """How every model of a run answered a held-out question, in the order of the stage table."""
    with reading(engine) as connection:
        models = {number: name for name, number in evaluations_to_read(connection, run_id).items()}
        query = (
            select(EvaluationSamples.evaluation_id, *_shares(EvaluationSamples))
            .where(
                EvaluationSamples.evaluation_id.in_(models),
                _is(EvaluationSamples.problem_id, problem),
            )
            .group_by(EvaluationSamples.evaluation_id)
        )
        found = [Answers(models[row[0]], 0, *row[1:]) for row in connection.execute(query)]
    return sorted(found, key=lambda answers: model_order(answers.model))


def answer_at_step(
    engine: Engine, run_id: str, stage: str, problem: str, step: int, number: int = 0
) -> Answer | None:
    """One answer that a stage gave at a step; ``number`` counts from 0."""
    held_out = (
        select(*(getattr(HeldOutSamples, name) for name in Answer._fields))
        .where(
            HeldOutSamples.stage_id == _source(run_id, stage),
            HeldOutSamples.step == step,
            _is(HeldOutSamples.problem_id, problem),
        )
        .order_by(HeldOutSamples.row)
    )
    columns = [getattr(Rollouts, name) for name in Answer._fields[1:]]
    places = ("stage_id", "step", "group", "sample")
    query = (
        select(RolloutTexts.text, *columns)
        .join(
            Rollouts, _all_equal([(getattr(RolloutTexts, p), getattr(Rollouts, p)) for p in places])
        )
        .where(
            Rollouts.stage_id == _source(run_id, stage),
            Rollouts.step == step,
            _is(Rollouts.problem_id, problem),
        )
        .order_by(Rollouts.group, Rollouts.sample)
    )
    return _one(engine, held_out.limit(1).offset(number)) or _one(
        engine, query.limit(1).offset(number)
    )


def answer_of_model(
    engine: Engine, run_id: str, model: str, problem: str, number: int = 0
) -> Answer | None:
    """One answer of a model of the run to a held-out question; ``number`` counts from 0."""
    with reading(engine) as connection:
        evaluation = evaluations_to_read(connection, run_id, model).get(model)
    columns = [getattr(EvaluationSamples, name) for name in Answer._fields]
    query = (
        select(*columns)
        .where(
            EvaluationSamples.evaluation_id == evaluation,
            _is(EvaluationSamples.problem_id, problem),
        )
        .order_by(EvaluationSamples.row)
    )
    return _one(engine, query.limit(1).offset(number))


def _one(engine: Engine, query: Any) -> Answer | None:
    with reading(engine) as connection:
        row = connection.execute(query).first()
        return None if row is None else Answer(*row)


def _questions(engine: Engine, asked: Any) -> list[Question]:
    query = (
        select(Problems.name, Problems.question, Problems.language, Problems.level, asked.c.times)
        .join(asked, asked.c.problem_id == Problems.id)
        .order_by(asked.c.times.desc(), Problems.level.desc(), Problems.id)
    )
    with reading(engine) as connection:
        return [Question(*row) for row in connection.execute(query)]


def _source(run_id: str, stage: str) -> Any:
    """The stage whose rows count."""
    return (
        select(func.coalesce(Stages.source_id, Stages.id))
        .where(Stages.run_id == run_id, Stages.name == stage)
        .scalar_subquery()
    )


def _is(column: Any, problem: str) -> ColumnElement[bool]:
    found: ColumnElement[bool] = column.in_(select(Problems.id).where(Problems.name == problem))
    return found


def _shares(table: type[Graded]) -> Sequence[Label[Any]]:
    """Count, share of right ones, mean length and mean reflection of completions."""
    right = case((table.verdict == Verdict.CORRECT.value, 1.0), else_=0.0)
    means = (right, table.length_tokens * 1.0, table.reflective_words * 1.0)
    return [
        func.count().label("samples"),
        *(func.avg(mean).label(f"mean_{place}") for place, mean in enumerate(means)),
    ]


def _all_equal(pairs: Sequence[tuple[Any, Any]]) -> ColumnElement[bool]:
    return and_(*(one == other for one, other in pairs))
