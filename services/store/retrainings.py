"""Retrainings: what each one was due for, what it ran, and how it ended.

One is written down before it starts, with its whole recipe, so a crash goes on with what it began
and not with what policy and pool say by then. At most one is running; a new one begins only when no
other has the state ``running``.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Engine, Index, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from services.errors import RetrainError
from services.store.opening import reading, storage_errors
from services.store.schema import Base

RetrainState = Literal["running", "promoted", "refused", "waiting", "failed"]
"""``waiting`` is a candidate that a person has to approve; what became of it is in approvals."""


class Retraining(NamedTuple):
    """One retraining."""

    id: int
    run_id: str
    """Its pipeline."""
    start: str
    """First stage that is trained anew; ``zero`` is the whole recipe."""
    reasons: list[str]
    """Why it was due."""
    recipe: str
    """The resolved recipe as JSON."""
    champion: int | None
    """The version it tries to better; None if there was none."""
    base: str
    """Digest of the base it began with."""
    student: str
    state: RetrainState
    attempts: int
    """How often it was begun; more than one after a crash."""
    outcome: str
    """What the gate said, or what went wrong; empty while it runs."""
    started_at: datetime
    seen_at: datetime
    """Of the last attempt."""
    ended_at: datetime | None


class Retrainings(Base):
    """The retrainings."""

    __tablename__ = "retrainings"
    __table_args__ = (
        Index(
            "one_retraining_runs",
            "state",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str]
    start: Mapped[str]
    reasons: Mapped[list[str]]
    recipe: Mapped[str]
    champion: Mapped[int | None]
    base: Mapped[str]
    student: Mapped[str]
    state: Mapped[str]
    attempts: Mapped[int]
    outcome: Mapped[str]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


def begin(
    engine: Engine,
    *,
    run_id: str,
    start: str,
    reasons: Sequence[str],
    recipe: str,
    champion: int | None,
    base: str,
    student: str,
) -> int:
    """Write down a retraining that starts now; its number.

    Raises:
        RetrainError: Another one is running.
    """
    now = datetime.now(UTC)
    facts: dict[str, Any] = {
        "run_id": run_id,
        "start": start,
        "reasons": list(reasons),
        "recipe": recipe,
        "champion": champion,
        "base": base,
        "student": student,
        "state": "running",
        "attempts": 1,
        "outcome": "",
        "started_at": now,
        "seen_at": now,
    }
    added = insert(Retrainings).values(facts).returning(Retrainings.id)
    try:
        with storage_errors(engine), engine.begin() as connection:
            return connection.execute(added).scalar_one()
    except IntegrityError as error:
        raise RetrainError(
            "another retraining is running", "Wait until it is done: r1 retrain --dry-run"
        ) from error


def go_on(engine: Engine, number: int) -> None:
    """Write down that a retraining which crashed is tried once more."""
    again = {"attempts": Retrainings.attempts + 1, "seen_at": datetime.now(UTC)}
    with storage_errors(engine), engine.begin() as connection:
        connection.execute(update(Retrainings).where(Retrainings.id == number).values(again))


def end(engine: Engine, number: int, state: RetrainState, outcome: str) -> None:
    """Write down how a retraining ended."""
    facts = {"state": state, "outcome": outcome, "ended_at": datetime.now(UTC)}
    with storage_errors(engine), engine.begin() as connection:
        connection.execute(update(Retrainings).where(Retrainings.id == number).values(facts))


def retrainings(engine: Engine, limit: int = 100) -> list[Retraining]:
    """The latest retrainings, newest first."""
    query = select(Retrainings.__table__).order_by(Retrainings.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [Retraining(**row) for row in connection.execute(query).mappings()]


def retraining(engine: Engine, number: int) -> Retraining:
    """One retraining.

    Raises:
        RetrainError: There is none of this number.
    """
    query = select(Retrainings.__table__).where(Retrainings.id == number)
    with reading(engine) as connection:
        row = connection.execute(query).mappings().first()
    if row is None:
        raise RetrainError(f"there is no retraining {number}", "See r1 retrain --dry-run")
    return Retraining(**row)
