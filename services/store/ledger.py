"""The ledger of promotions: which version of a model is champion, since when, by whom and why.

Entries of a model are numbered without gaps, and the number is its primary key: of two promoters
who both saw entry n, one writes n + 1 and the other is refused by the database, whichever it is.
Entries are never changed or removed. The last one says who is champion.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from services.store.opening import open_engine_to_write, reading, storage_errors
from services.store.schema import Base

Action = Literal["promote", "rollback"]


class Promotion(NamedTuple):
    """One entry: how a model's champion changed."""

    model: str
    """Name of the registered model."""
    sequence: int
    """Number of the entry among those of its model, from 1."""
    action: Action
    champion: int
    """The version that is champion from here on."""
    previous: int | None
    """The version that a rollback would bring back."""
    who: str
    why: str
    at: datetime
    """With time zone."""


class Promotions(Base):
    """The entries."""

    __tablename__ = "promotions"

    model: Mapped[str] = mapped_column(primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    action: Mapped[str]
    champion: Mapped[int]
    previous: Mapped[int | None]
    who: Mapped[str]
    why: Mapped[str]
    at: Mapped[datetime]


def champions(history: Sequence[Promotion]) -> list[int]:
    """The present champion and those that rollbacks lead to one after the other, present last."""
    line: list[int] = []
    for entry in history:
        if entry.action == "promote":
            line.append(entry.champion)
        else:
            line.pop()
    return line


def open_ledger(url: str) -> "SqlLedger":
    """The ledger of a store; a store that is not there is created.

    Raises:
        StoreError: The store cannot be written, or has another schema.
    """
    return SqlLedger(open_engine_to_write(url))


class SqlLedger:
    """The ledger as a table of the store."""

    def __init__(self, engine: Engine) -> None:
        """Use the store behind ``engine``."""
        self._engine = engine

    def history(self, model: str) -> list[Promotion]:
        """All entries of a model, oldest first."""
        entries = select(Promotions.__table__).where(Promotions.model == model)
        with reading(self._engine) as connection:
            rows = connection.execute(entries.order_by(Promotions.sequence))
            return [Promotion(**row) for row in rows.mappings()]

    def models(self) -> list[str]:
        """Names of all models that have had a champion."""
        with reading(self._engine) as connection:
            return list(connection.scalars(select(Promotions.model).distinct()))

    def head(self, model: str) -> Promotion | None:
        """The last entry of a model."""
        entries = select(Promotions.__table__).where(Promotions.model == model)
        last = entries.order_by(Promotions.sequence.desc()).limit(1)
        with reading(self._engine) as connection:
            row = connection.execute(last).mappings().first()
            return None if row is None else Promotion(**row)

    def append(self, entry: Promotion) -> bool:
        """Write the next entry; False if another one has taken its number."""
        try:
            with storage_errors(self._engine), self._engine.begin() as connection:
                connection.execute(insert(Promotions).values(entry._asdict()))
        except IntegrityError:
            return False
        return True
