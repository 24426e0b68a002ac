"""What retention removed: nothing goes without a line here that says what, when, who and why."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, Engine, insert, select
from sqlalchemy.orm import Mapped, mapped_column

from services.store.opening import reading, storage_errors
from services.store.schema import Base


class Removal(NamedTuple):
    """One folder that was removed."""

    path: str
    digest: str
    """Of what it held, so that it can be recognised if it is made again."""
    size_bytes: int
    who: str
    why: str
    at: datetime


class Removals(Base):
    """The folders."""

    __tablename__ = "removals"

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]
    digest: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    who: Mapped[str]
    why: Mapped[str]
    at: Mapped[datetime]


def record(engine: Engine, removed: Sequence[Removal]) -> None:
    """Write down what is about to go."""
    if removed:
        with storage_errors(engine), engine.begin() as connection:
            connection.execute(insert(Removals), [row._asdict() for row in removed])


def removals(engine: Engine) -> list[Removal]:
    """All that was removed, oldest first."""
    columns = [getattr(Removals, name) for name in Removal._fields]
    with reading(engine) as connection:
        return [Removal(*row) for row in connection.execute(select(*columns).order_by(Removals.id))]
