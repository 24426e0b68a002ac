"""Who is champion, since when, by whom and why: the last entry of every model's ledger."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine, func, select

from services.store.ledger import Promotions
from services.store.opening import reading


class Champion(NamedTuple):
    """The champion of one registered model."""

    model: str
    version: int
    action: str
    """How it became champion: ``promote`` or ``rollback``."""
    who: str
    why: str
    at: datetime
    times: int
    """How often the champion has changed."""


def champions(engine: Engine) -> list[Champion]:
    """One champion for each model that ever had one, by name."""
    last = (
        select(Promotions.model, func.max(Promotions.sequence).label("sequence"))
        .group_by(Promotions.model)
        .subquery()
    )
    query = (
        select(
            Promotions.model,
            Promotions.champion,
            Promotions.action,
            Promotions.who,
            Promotions.why,
            Promotions.at,
            Promotions.sequence,
        )
        .join(last, (last.c.model == Promotions.model) & (last.c.sequence == Promotions.sequence))
        .order_by(Promotions.model)
    )
    with reading(engine) as connection:
        return [Champion(*row) for row in connection.execute(query)]
