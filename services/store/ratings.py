"""Ratings: what people said of two answers to the same question.

Kept apart from everything that was computed, because people are asked and never overruled. Nothing
trains on them yet.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, get_args

from sqlalchemy import Engine, Index, insert
from sqlalchemy.orm import Mapped, mapped_column

from services.errors import StoreError
from services.store.opening import open_engine_to_write, storage_errors
from services.store.schema import Base, ModelText

Preferred = Literal["left", "right", "both", "neither"]
PREFERRED: Final[Sequence[Preferred]] = get_args(Preferred)


class Rating(NamedTuple):
    """One comparison of two answers."""

    who: str
    question: str
    left_model: str
    """Name and version, as the registry has it."""
    left_digest: str
    left_text: str
    right_model: str
    right_digest: str
    right_text: str
    preferred: Preferred
    note: str
    at: datetime
    """With time zone."""


class Ratings(Base):
    """The comparisons."""

    __tablename__ = "ratings"
    __table_args__ = (Index("ratings_by_models", "left_digest", "right_digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str] = mapped_column(ModelText)
    question: Mapped[str] = mapped_column(ModelText)
    left_model: Mapped[str]
    left_digest: Mapped[str]
    left_text: Mapped[str] = mapped_column(ModelText)
    right_model: Mapped[str]
    right_digest: Mapped[str]
    right_text: Mapped[str] = mapped_column(ModelText)
    preferred: Mapped[str]
    note: Mapped[str] = mapped_column(ModelText)
    at: Mapped[datetime]


def open_ratings(url: str) -> "SqlRatings":
    """The ratings of a store; a store that is not there is created.

    Raises:
        StoreError: The store cannot be written, or has another schema.
    """
    return SqlRatings(open_engine_to_write(url))


class SqlRatings:
    """The ratings as a table of the store."""

    def __init__(self, engine: Engine) -> None:
        """Use the store behind ``engine``."""
        self._engine = engine

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def add(self, rating: Rating) -> None:
        """Keep a rating.

        Raises:
            StoreError: It prefers something else than one of ``PREFERRED``.
        """
        if rating.preferred not in PREFERRED:
            raise StoreError(
                f"nobody can prefer {rating.preferred!r}", f"Choose one of {', '.join(PREFERRED)}"
            )
        with storage_errors(self._engine), self._engine.begin() as connection:
            connection.execute(insert(Ratings).values(rating._asdict()))


def now() -> datetime:
    """The present moment, as ratings write it."""
    return datetime.now(UTC)
