"""Completions of training: looked through by what is known about them, shown with their text."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Engine, Select, UnaryExpression, and_, func, select

from services.store.opening import reading
from services.store.schema import Problems, Rollouts, RolloutTexts, Runs, Stages

MAX_SAMPLES = 1000
"""Completions of one answer at most; as many as an export holds."""
MAX_COUNT = 10_000
"""Counting stops here: nobody turns so many pages."""
SEARCHED = 50_000
"""Completions whose texts one search for words reads at most, the first in the chosen order."""
PARTS = ("total", "accuracy", "format", "language", "preference")
"""Parts of the reward that can be asked for by size."""
HISTOGRAM_BARS = 60
"""Bars of a histogram at most."""
SAME = 1e-6
"""Rewards that differ by less are equal: sums of weighted parts are not exact."""
Order = Literal["step", "latest", "longest", "shortest", "best", "worst"]


class CompletionFilter(NamedTuple):
    """Which completions of a stage; None and the empty string ask for nothing."""

    first_step: int | None = None
    last_step: int | None = None
    group: int | None = None
    """One group of a step, to see its members side by side."""
    verdict: str | None = None
    """``correct``, ``wrong`` or ``unscorable``."""
    min_tokens: int | None = None
    max_tokens: int | None = None
    truncated: bool | None = None
    mixed_language: bool | None = None
    """Whether any word is in another language than the question."""
    false_claim: bool | None = None
    language: str | None = None
    """Language of the question."""
    level: int | None = None
    problem: str | None = None
    """The id its source gave the problem."""
    part: str = "total"
    """Which of ``PARTS`` the next two bound."""
    min_part: float | None = None
    below_part: float | None = None
    """Less than this: a bar of ``reward_histogram`` ends where the next one begins."""
    contains: str = ""
    """Text that must occur in the completion; case counts only beyond ASCII on SQLite. Only the
    first ``SEARCHED`` completions that are like the rest says are looked through."""


class Bar(NamedTuple):
    """How many completions have a value from ``lower`` on, and below ``upper``."""

    lower: float
    upper: float
    completions: int


class Completion(NamedTuple):
    """One sampled completion with its question and all that scoring says of it."""

    stage: str
    step: int
    group: int
    sample: int
    problem: str
    """The id its source gave the problem."""
    kind: str
    question: str
    gold: str
    question_language: str
    level: int
    text: str
    """As the model wrote it. Untrusted: show it as text, never as Markdown or HTML."""
    verdict: str
    reason: str
    total: float | None
    parts: Mapping[str, float | None]
    advantage: float
    length_tokens: int
    truncated: bool
    language_share: float
    reflective_words: int
    gave_up: bool
    attempts: int
    repeated_attempts: int
    slips: int
    false_claim: bool


_PLACE = ("stage_id", "step", "group", "sample")
_ORDERS: dict[Order, tuple[UnaryExpression[Any], ...]] = {
    "step": (Rollouts.step.asc(),),
    "latest": (Rollouts.step.desc(),),
    "longest": (Rollouts.length_tokens.desc(), Rollouts.step.desc()),
    "shortest": (Rollouts.length_tokens.asc(), Rollouts.step.desc()),
    "best": (Rollouts.total.desc(), Rollouts.step.desc()),
    "worst": (Rollouts.total.asc(), Rollouts.step.desc()),
}
_BY_REWARD = ("best", "worst")
"""Orders that leave out what has no reward: where nulls go, databases and their indices differ."""
_CONDITIONS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "first_step": lambda step: Rollouts.step >= step,
    "last_step": lambda step: Rollouts.step <= step,
    "group": lambda group: Rollouts.group == group,
    "verdict": lambda verdict: Rollouts.verdict == verdict,
    "min_tokens": lambda tokens: Rollouts.length_tokens >= tokens,
    "max_tokens": lambda tokens: Rollouts.length_tokens <= tokens,
    "truncated": lambda truncated: Rollouts.truncated == truncated,
    "mixed_language": lambda mixed: (Rollouts.language_share < 1.0) == mixed,
    "false_claim": lambda claims: Rollouts.false_claim == claims,
}
_ASKED_OF_PROBLEMS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "language": lambda language: Problems.language == language,
    "level": lambda level: Problems.level == level,
    "problem": lambda name: Problems.name == name,
}


def step_samples(
    engine: Engine,
    run_id: str,
    stage: str,
    wanted: CompletionFilter = CompletionFilter(),  # noqa: B008 (a frozen tuple)
    *,
    order: Order = "latest",
    limit: int = 50,
    offset: int = 0,
) -> list[Completion]:
    """Completions of one stage of a run, at most ``MAX_SAMPLES`` at a time."""
    places = _places(run_id, stage, wanted, order, min(limit, MAX_SAMPLES), offset).subquery()
    query = (
        select(
            *Rollouts.__table__.columns,
            RolloutTexts.text,
            Problems.name.label("problem"),
            Problems.kind,
            Problems.question,
            Problems.gold,
            Problems.language.label("question_language"),
            Problems.level,
        )
        .join(places, _same_place(Rollouts, places.c))
        .join(RolloutTexts, _same_place(RolloutTexts, places.c))
        .join(Problems, Problems.id == Rollouts.problem_id)
        .order_by(*_ORDERS[order], Rollouts.group, Rollouts.sample)
    )
    with reading(engine) as connection:
        found = connection.execute(query).mappings().all()
    fields = [name for name in Completion._fields if name != "stage"]
    return [Completion(stage=stage, **{name: row[name] for name in fields}) for row in found]


def count_samples(
    engine: Engine,
    run_id: str,
    stage: str,
    wanted: CompletionFilter = CompletionFilter(),  # noqa: B008 (a frozen tuple)
    *,
    order: Order = "latest",
) -> int:
    """How many completions ``step_samples`` would find; it stops at ``MAX_COUNT``."""
    places = _places(run_id, stage, wanted, order, MAX_COUNT, 0, sort=False).subquery()
    with reading(engine) as connection:
        return int(connection.execute(select(func.count()).select_from(places)).scalar_one())


def reward_histogram(
    engine: Engine,
    run_id: str,
    stage: str,
    wanted: CompletionFilter = CompletionFilter(),  # noqa: B008 (a frozen tuple)
    *,
    width: float = 0.1,
) -> list[Bar]:
    """How the part of the reward that ``wanted`` names is spread over the completions it finds.

    Its own bounds are left out, so that the whole can be seen beside what they choose. Only the
    latest ``MAX_COUNT`` completions are counted, and bars that would be empty are not there.

    Args:
        engine: On the store.
        run_id: The run.
        stage: Its stage.
        wanted: Which completions.
        width: Of a bar, in units of the reward.
    """
    wanted = wanted._replace(min_part=None, below_part=None)
    places = _places(run_id, stage, wanted, "latest", MAX_COUNT, 0).subquery()
    value = getattr(Rollouts, wanted.part)
    # The floor by way of rounding: SQLite has the one where it was built so, the other always.
    bar = func.round(value / width - 0.5 + SAME).label("bar")
    query = (
        select(bar, func.count())
        .join(places, _same_place(Rollouts, places.c))
        .where(value.is_not(None))
        .group_by(bar)
        .order_by(bar)
        .limit(HISTOGRAM_BARS)
    )
    with reading(engine) as connection:
        found = connection.execute(query).all()
    return [Bar(round(bar * width, 6), round((bar + 1) * width, 6), count) for bar, count in found]


def reward_weights(engine: Engine, run_id: str, stage: str) -> dict[str, float]:
    """What each part of the reward weighs in a stage, as the recipe of the run says it."""
    query = select(Runs.recipe).where(Runs.id == run_id)
    with reading(engine) as connection:
        recipe = json.loads(connection.execute(query).scalar() or "{}")
    settings = recipe.get(stage.replace("-", "_"), {})
    weights: dict[str, float] = settings.get("weights", {})
    shaping: dict[str, float] = settings.get("shaping", {})
    kinds = ("overlong", "repetition", "length")
    return weights | {name: shaping[name] for name in kinds if shaping.get(name)}


def _places(
    run_id: str,
    stage: str,
    wanted: CompletionFilter,
    order: Order,
    limit: int,
    offset: int,
    *,
    sort: bool = True,
) -> Select[Any]:
    """Where the wanted completions stand, found and sorted without touching texts if possible."""
    like = _candidates(run_id, stage, wanted)
    if order in _BY_REWARD:
        like = like.where(Rollouts.total.is_not(None))
    sorting = (*_ORDERS[order], Rollouts.group, Rollouts.sample)
    if wanted.contains:
        first = like.order_by(*sorting).limit(SEARCHED).subquery()
        texts = RolloutTexts.text.icontains(wanted.contains, autoescape=True)
        like = (
            select(*(getattr(Rollouts, name) for name in _PLACE))
            .join(first, _same_place(Rollouts, first.c))
            .join(RolloutTexts, _same_place(RolloutTexts, first.c))
            .where(texts)
        )
    return (like.order_by(*sorting) if sort else like).limit(limit).offset(offset)


def _candidates(run_id: str, stage: str, wanted: CompletionFilter) -> Select[Any]:
    """Completions that are like everything but the words asked for."""
    source = (
        select(func.coalesce(Stages.source_id, Stages.id))
        .where(Stages.run_id == run_id, Stages.name == stage)
        .scalar_subquery()
    )
    asked = {name: value for name, value in wanted._asdict().items() if value not in (None, "")}
    query = select(*(getattr(Rollouts, name) for name in _PLACE)).where(
        Rollouts.stage_id == source,
        *(_CONDITIONS[name](value) for name, value in asked.items() if name in _CONDITIONS),
        *_bounds(wanted),
    )
    problems = [
        _ASKED_OF_PROBLEMS[name](value)
        for name, value in asked.items()
        if name in _ASKED_OF_PROBLEMS
    ]
    if problems:  # there are few: the list of them is quicker than a join of every completion
        query = query.where(Rollouts.problem_id.in_(select(Problems.id).where(*problems)))
    return query


def _bounds(wanted: CompletionFilter) -> list[ColumnElement[bool]]:
    """From where and to below where one part of the reward may lie."""
    if wanted.part not in PARTS:
        raise ValueError(f"{wanted.part!r} is no part of the reward that is stored by itself")
    column = getattr(Rollouts, wanted.part)
    bounds = []
    if wanted.min_part is not None:
        bounds.append(column >= wanted.min_part - SAME)
    if wanted.below_part is not None:
        bounds.append(column < wanted.below_part - SAME)
    return bounds


def _same_place(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(*(getattr(one, name) == getattr(other, name) for name in _PLACE))
