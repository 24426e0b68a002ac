"""What people said of answers, and how often they said it."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine, case, func, select

from services.store.opening import reading
from services.store.ratings import Ratings

MAX_OPINIONS = 100


class Opinion(NamedTuple):
    """One rating of two answers, without their texts."""

    at: datetime
    who: str
    left_model: str
    right_model: str
    preferred: str
    note: str
    question: str


class Tally(NamedTuple):
    """How often each of two models was preferred."""

    left_model: str
    right_model: str
    left: int
    right: int
    both: int
    neither: int


def opinions(engine: Engine, *, limit: int = 20, offset: int = 0) -> list[Opinion]:
    """Ratings, newest first, at most ``MAX_OPINIONS`` at a time."""
    columns = [getattr(Ratings, name) for name in Opinion._fields]
    query = select(*columns).order_by(Ratings.id.desc())
    with reading(engine) as connection:
        page = connection.execute(query.limit(min(limit, MAX_OPINIONS)).offset(offset))
        return [Opinion(*row) for row in page]


def tallies(engine: Engine, limit: int = 20) -> list[Tally]:
    """Counts of ratings by pair of models, those rated last first."""
    counts = [
        func.sum(case((Ratings.preferred == word, 1), else_=0))
        for word in ("left", "right", "both", "neither")
    ]
    query = (
        select(Ratings.left_model, Ratings.right_model, *counts)
        .group_by(Ratings.left_model, Ratings.right_model)
        .order_by(func.max(Ratings.id).desc())
        .limit(limit)
    )
    with reading(engine) as connection:
        return [Tally(*row) for row in connection.execute(query)]
