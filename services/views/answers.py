"""What a model showed on single problems: the rows behind paired and stratified comparisons."""

from collections.abc import Mapping

from sqlalchemy import Double, Engine, case, cast, func, select

from services.gates import Answer
from services.store.opening import reading
from services.store.schema import Evaluations, EvaluationSamples, Problems, Runs
from services.types import Verdict
from services.views.results import evaluations_to_read

Answers = Mapping[str, Mapping[str, Answer]]
"""Metric to problem (by digest) to answer."""


def evaluation_ids(engine: Engine, run_id: str) -> dict[str, int]:
    """Numbers of a run's evaluations by model, those of stages it took from other runs included."""
    with reading(engine) as connection:
        return evaluations_to_read(connection, run_id)


def protocol_of(engine: Engine, evaluation_id: int) -> dict[str, object] | None:
    """How an evaluation was made; None if it is not in the store any more."""
    query = select(Evaluations.protocol).where(Evaluations.id == evaluation_id)
    with reading(engine) as connection:
        found: dict[str, object] | None = connection.execute(query).scalar()
        return found


def recipe_of(engine: Engine, run_id: str) -> str | None:
    """The resolved recipe of a run as JSON; None if the store does not know the run."""
    with reading(engine) as connection:
        return connection.execute(select(Runs.recipe).where(Runs.id == run_id)).scalar()


def answers(engine: Engine, evaluation_id: int) -> Answers:
    """Means over the completions of each reasoning problem of an evaluation.

    Metrics: ``pass@1``, ``format``, ``language/consistency`` (shares) and ``length/mean`` (tokens).
    """
    right = case((EvaluationSamples.verdict == Verdict.CORRECT.value, 1.0), else_=0.0)
    measures = {
        "pass@1": func.avg(right),
        "format": func.avg(EvaluationSamples.format),
        "language/consistency": func.avg(EvaluationSamples.language_share),
        "length/mean": func.avg(cast(EvaluationSamples.length_tokens, Double)),
    }
    query = (
        select(Problems.digest, Problems.level, *measures.values())
        .join(EvaluationSamples, EvaluationSamples.problem_id == Problems.id)
        .where(EvaluationSamples.evaluation_id == evaluation_id, Problems.kind != "general")
        .group_by(Problems.digest, Problems.level)
    )
    found: dict[str, dict[str, Answer]] = {name: {} for name in measures}
    with reading(engine) as connection:
        for digest, level, *values in connection.execute(query):
            for name, value in zip(measures, values, strict=True):
                if value is not None:
                    found[name][digest] = Answer(level, float(value))
    return found
