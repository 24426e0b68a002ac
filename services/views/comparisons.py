"""Measured models beside each other: intervals, paired differences, single problems.

A model's accuracy is the mean over levels of the mean over problems of the share of right
completions, as in the stage table. Problems, not completions, are what was drawn at random, so
intervals come from the spread between problems within each level. Sums are made by the database: a
million completions come back as one row for each level.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean
from typing import Any, Literal, NamedTuple

from sqlalchemy import Engine, Select, Subquery, case, func, or_, select
from sqlalchemy.orm import aliased

from services.store.opening import reading
from services.store.schema import Evaluations, EvaluationSamples, Problems, Stages
from services.types import Verdict
from services.views.results import MODELS

CONFIDENCE = 0.95
"""Two-sided, of all intervals."""
MAX_PAIRS = 200
MAX_ANSWERS = 64
PairOrder = Literal["left ahead", "right ahead", "hardest", "easiest"]


class Measured(NamedTuple):
    """One model that was evaluated."""

    id: int
    run: str
    model: str


class Estimate(NamedTuple):
    """Accuracy of a model with its interval."""

    evaluation: int
    level: int | None
    """None over all levels."""
    mean: float
    lower: float
    upper: float
    problems: int


class PairedDifference(NamedTuple):
    """Left minus right in accuracy, over the problems that both answered."""

    mean: float
    lower: float
    """Two-sided interval; as wide as can be where it cannot be told."""
    upper: float
    problems: int
    left_ahead: int
    """Problems on which the left model has the larger share of right completions."""
    right_ahead: int


class PairedProblem(NamedTuple):
    """One problem that two models answered."""

    id: int
    """Number of the problem in the store."""
    name: str
    question: str
    gold: str
    language: str
    level: int
    left: float
    """Share of right completions."""
    right: float
    left_tokens: float
    """Mean length of a completion."""
    right_tokens: float


class AskedProblem(NamedTuple):
    """A problem as it is asked."""

    name: str
    kind: str
    question: str
    gold: str
    language: str
    level: int


class AnswerCount(NamedTuple):
    """Completions of one problem by one model."""

    all: int
    right: int


class Answer(NamedTuple):
    """One graded completion of an evaluation."""

    sample: int
    text: str
    """As the model wrote it. Untrusted: show it as text."""
    verdict: str
    reason: str
    parts: dict[str, float | None]
    length_tokens: int
    truncated: bool
    language_share: float
    reflective_words: int


def measured_models(engine: Engine, run_id: str) -> list[Measured]:
    """The models of a run that were evaluated, in the order of the stage table."""
    source = aliased(Stages)
    taken = (
        select(source.run_id)
        .join(Stages, Stages.source_id == source.id)
        .where(Stages.run_id == run_id, Stages.kind == "evaluation")
    )
    query = (
        select(Evaluations.id, Evaluations.run_id, Evaluations.model)
        .where(or_(Evaluations.run_id == run_id, Evaluations.run_id.in_(taken)))
        .order_by((Evaluations.run_id == run_id).asc(), Evaluations.id)
    )
    with reading(engine) as connection:
        by_model = {row.model: Measured(*row) for row in connection.execute(query)}
    places = {model: place for place, model in enumerate(MODELS)}
    return sorted(by_model.values(), key=lambda row: (places.get(row.model, len(places)), row.id))


def accuracy_estimates(engine: Engine, evaluations: Sequence[int]) -> list[Estimate]:
    """Accuracy of some models, over all levels and at each level, with 95 % intervals.

    Wilson's interval at the effective number of completions that the spread between problems
    implies (as survey statistics treat clusters): it stays within 0…1 and does not vanish where
    every answer is right.
    """
    shares = _shares(evaluations).subquery()
    query = (
        select(
            shares.c.evaluation_id,
            shares.c.level,
            func.count(),
            func.sum(shares.c.right),
            func.sum(shares.c.right * shares.c.right),
        )
        .group_by(shares.c.evaluation_id, shares.c.level)
        .order_by(shares.c.evaluation_id, shares.c.level)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    found = []
    for evaluation in evaluations:
        levels = [_Level(*row[1:]) for row in rows if row[0] == evaluation]
        if levels:
            found.append(_estimate(evaluation, None, levels))
            found += [_estimate(evaluation, level.level, [level]) for level in levels]
    return found


def paired_difference(engine: Engine, left: int, right: int) -> PairedDifference | None:
    """How far one model is ahead of another on the same problems; None without common problems."""
    pairs = _pairs(left, right).subquery()
    difference = pairs.c.left - pairs.c.right
    query = select(
        pairs.c.level,
        func.count(),
        func.sum(difference),
        func.sum(difference * difference),
        func.sum(case((difference > 0, 1), else_=0)),
        func.sum(case((difference < 0, 1), else_=0)),
    ).group_by(pairs.c.level)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    if not rows:
        return None
    levels = [_Level(*row[:4]) for row in rows]
    mean = fmean(level.mean for level in levels)
    error = _standard_error(levels)
    half = math.inf if error is None else _quantile() * error
    return PairedDifference(
        mean,
        max(-1.0, mean - half),
        min(1.0, mean + half),
        sum(level.problems for level in levels),
        sum(row[4] for row in rows),
        sum(row[5] for row in rows),
    )


def paired_problems(
    engine: Engine,
    left: int,
    right: int,
    level: int | None = None,
    language: str | None = None,
    *,
    order: PairOrder = "left ahead",
    limit: int = 20,
    offset: int = 0,
) -> list[PairedProblem]:
    """Problems that two models answered, at most ``MAX_PAIRS`` at a time."""
    pairs = _pairs(left, right, level, language).subquery()
    difference = pairs.c.left - pairs.c.right
    keys = {
        "left ahead": difference.desc(),
        "right ahead": difference.asc(),
        "hardest": (pairs.c.left + pairs.c.right).asc(),
        "easiest": (pairs.c.left + pairs.c.right).desc(),
    }
    query = (
        select(
            pairs.c.problem_id,
            Problems.name,
            Problems.question,
            Problems.gold,
            Problems.language,
            Problems.level,
            pairs.c.left,
            pairs.c.right,
            pairs.c.left_tokens,
            pairs.c.right_tokens,
        )
        .join(Problems, Problems.id == pairs.c.problem_id)
        .order_by(keys[order], pairs.c.problem_id)
        .limit(min(limit, MAX_PAIRS))
        .offset(offset)
    )
    with reading(engine) as connection:
        return [PairedProblem(*row) for row in connection.execute(query)]


def count_paired_problems(
    engine: Engine, left: int, right: int, level: int | None = None, language: str | None = None
) -> int:
    """How many problems two models answered."""
    pairs = _pairs(left, right, level, language).subquery()
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(pairs)).scalar_one()


def answers(
    engine: Engine, evaluation: int, problem: int, *, limit: int = 4, offset: int = 0
) -> list[Answer]:
    """What a model answered to one problem, at most ``MAX_ANSWERS`` at a time."""
    columns = [getattr(EvaluationSamples, name) for name in Answer._fields]
    query = (
        select(*columns)
        .where(
            EvaluationSamples.evaluation_id == evaluation, EvaluationSamples.problem_id == problem
        )
        .order_by(EvaluationSamples.sample)
        .limit(min(limit, MAX_ANSWERS))
        .offset(offset)
    )
    with reading(engine) as connection:
        return [Answer(*row) for row in connection.execute(query)]


def answer_count(engine: Engine, evaluation: int, problem: int) -> AnswerCount:
    """How often a model answered a problem, and how often rightly."""
    right = case((EvaluationSamples.verdict == Verdict.CORRECT.value, 1), else_=0)
    query = select(func.count(), func.coalesce(func.sum(right), 0)).where(
        EvaluationSamples.evaluation_id == evaluation, EvaluationSamples.problem_id == problem
    )
    with reading(engine) as connection:
        return AnswerCount(*connection.execute(query).one())


def problem_of(engine: Engine, problem: int) -> AskedProblem | None:
    """A problem by its number in the store."""
    columns = [getattr(Problems, name) for name in AskedProblem._fields]
    with reading(engine) as connection:
        row = connection.execute(select(*columns).where(Problems.id == problem)).first()
        return None if row is None else AskedProblem(*row)


class _Level(NamedTuple):
    """Sums over the problems of one level."""

    level: int
    problems: int
    total: float
    squares: float

    @property
    def mean(self) -> float:
        return self.total / self.problems

    @property
    def variance_of_mean(self) -> float | None:
        """None where a single problem tells nothing of the spread."""
        if self.problems < 2:
            return None
        spread = max(0.0, self.squares - self.total**2 / self.problems) / (self.problems - 1)
        return spread / self.problems


def _standard_error(levels: Sequence[_Level]) -> float | None:
    """Of the mean over levels with equal weight."""
    variances = [level.variance_of_mean for level in levels]
    known = [variance for variance in variances if variance is not None]
    if len(known) < len(variances):
        return None
    return math.sqrt(sum(known)) / len(levels)


def _estimate(evaluation: int, level: int | None, levels: Sequence[_Level]) -> Estimate:
    mean = fmean(of_level.mean for of_level in levels)
    problems = sum(of_level.problems for of_level in levels)
    error = _standard_error(levels)
    effective = mean * (1 - mean) / error**2 if error else float(problems)
    lower, upper = wilson(mean, effective)
    return Estimate(evaluation, level, mean, lower, upper, problems)


def wilson(share: float, trials: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share among so many (not necessarily whole) trials."""
    z = _quantile(confidence)
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = (
        z
        / (1 + z * z / trials)
        * math.sqrt(max(0.0, share * (1 - share)) / trials + z * z / (4 * trials * trials))
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def _quantile(confidence: float = CONFIDENCE) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _shares(
    evaluations: Sequence[int], level: int | None = None, language: str | None = None
) -> Select[Any]:
    """Share of right completions and mean length, by evaluation and problem; rules only."""
    right = case((EvaluationSamples.verdict == Verdict.CORRECT.value, 1.0), else_=0.0)
    query = (
        select(
            EvaluationSamples.evaluation_id,
            EvaluationSamples.problem_id,
            Problems.level,
            func.avg(right).label("right"),
            func.avg(EvaluationSamples.length_tokens).label("tokens"),
        )
        .join(Problems, Problems.id == EvaluationSamples.problem_id)
        .where(EvaluationSamples.evaluation_id.in_(evaluations), Problems.kind != "general")
        .group_by(EvaluationSamples.evaluation_id, EvaluationSamples.problem_id, Problems.level)
    )
    if level is not None:
        query = query.where(Problems.level == level)
    return query.where(Problems.language == language) if language else query


def _pairs(
    left: int, right: int, level: int | None = None, language: str | None = None
) -> Select[Any]:
    one: Subquery = _shares([left], level, language).subquery()
    other: Subquery = _shares([right], level, language).subquery()
    return select(
        one.c.problem_id,
        one.c.level,
        one.c.right.label("left"),
        other.c.right.label("right"),
        one.c.tokens.label("left_tokens"),
        other.c.tokens.label("right_tokens"),
    ).join(other, other.c.problem_id == one.c.problem_id)
