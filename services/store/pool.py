"""The pool of added problems: what people hand in to be trained on, and which run used it.

A problem is in the pool once, by the digest of its normalised question; adding is all or nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine, ForeignKey, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from services.errors import ProblemError
from services.store.opening import reading, storage_errors
from services.store.schema import Base, EvaluationSamples, ModelText, Problems
from services.tasks.overlap import question_digest
from services.types import Problem

_AT_A_TIME = 500


class PooledProblem(NamedTuple):
    """A problem of the pool and where it came from."""

    digest: str
    """Of its normalised question."""
    problem: Problem
    origin: str
    """The file it was read from."""
    who: str
    added_at: datetime
    used_by: list[str]
    """Runs that trained on it, oldest first."""


class PoolCount(NamedTuple):
    """How many problems of one sort there are."""

    kind: str
    language: str
    level: int
    problems: int
    unused: int
    """That no run has trained on."""


class Pool(Base):
    """The problems."""

    __tablename__ = "pool"

    digest: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]
    question: Mapped[str] = mapped_column(ModelText)
    gold: Mapped[str] = mapped_column(ModelText)
    language: Mapped[str]
    level: Mapped[int]
    origin: Mapped[str]
    who: Mapped[str]
    added_at: Mapped[datetime]


class PoolUses(Base):
    """Which run trained on which problem."""

    __tablename__ = "pool_uses"

    digest: Mapped[str] = mapped_column(ForeignKey("pool.digest"), primary_key=True)
    run_id: Mapped[str] = mapped_column(primary_key=True)
    used_at: Mapped[datetime]


def add(engine: Engine, problems: Sequence[Problem], *, origin: str, who: str) -> None:
    """Add problems that are not in the pool, all or none.

    Raises:
        ProblemError: Somebody added one of them at the same time.
    """
    now = datetime.now(UTC)
    rows = [_row(problem) | {"origin": origin, "who": who, "added_at": now} for problem in problems]
    if not rows:
        return
    try:
        with storage_errors(engine), engine.begin() as connection:
            connection.execute(insert(Pool), rows)
    except IntegrityError as error:
        raise ProblemError(
            "somebody added one of these problems at the same time, and nothing was added",
            "Run the same command again; it names the line",
        ) from error


def pooled(engine: Engine) -> list[PooledProblem]:
    """The whole pool, oldest first."""
    with reading(engine) as connection:
        rows = connection.execute(select(Pool.__table__).order_by(Pool.added_at, Pool.digest))
        found = list(rows.mappings())
        uses: dict[str, list[str]] = {}
        order = select(PoolUses.digest, PoolUses.run_id).order_by(PoolUses.used_at)
        for digest, run_id in connection.execute(order):
            uses.setdefault(digest, []).append(run_id)
    return [
        PooledProblem(
            row["digest"],
            _problem(row),
            row["origin"],
            row["who"],
            row["added_at"],
            uses.get(row["digest"], []),
        )
        for row in found
    ]


def mark_used(engine: Engine, digests: Iterable[str], run_id: str) -> None:
    """Say that a run trains on problems; saying it twice is saying it once."""
    now = datetime.now(UTC)
    rows = [{"digest": digest, "run_id": run_id, "used_at": now} for digest in sorted(set(digests))]
    dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
    with storage_errors(engine), engine.begin() as connection:
        known = set(connection.scalars(select(Pool.digest)))
        rows = [row for row in rows if row["digest"] in known]  # a snapshot may come from elsewhere
        for start in range(0, len(rows), _AT_A_TIME):
            some = dialect.insert(PoolUses).on_conflict_do_nothing()
            connection.execute(some, rows[start : start + _AT_A_TIME])


def unused(engine: Engine) -> int:
    """How many problems no run has trained on: what makes a retraining due."""
    query = select(func.count()).where(~Pool.digest.in_(select(PoolUses.digest)))
    with reading(engine) as connection:
        return connection.execute(query.select_from(Pool)).scalar_one()


def counts(engine: Engine) -> list[PoolCount]:
    """The pool by kind, language and level."""
    groups = (Pool.kind, Pool.language, Pool.level)
    new = func.count().filter(~Pool.digest.in_(select(PoolUses.digest)))
    query = select(*groups, func.count(), new).group_by(*groups).order_by(*groups)
    with reading(engine) as connection:
        return [PoolCount(*row) for row in connection.execute(query)]


def evaluated_questions(engine: Engine) -> list[str]:
    """Every question that some evaluation has asked: held out, whatever recipe says so."""
    asked = select(EvaluationSamples.problem_id).distinct()
    query = select(Problems.question).where(Problems.id.in_(asked), Problems.kind != "general")
    with reading(engine) as connection:
        return list(connection.scalars(query))


def _row(problem: Problem) -> dict[str, Any]:
    return {
        "digest": question_digest(problem.question),
        "name": problem.id,
        "kind": problem.kind,
        "question": problem.question,
        "gold": problem.gold,
        "language": problem.language,
        "level": problem.level,
    }


def _problem(row: Mapping[Any, Any]) -> Problem:
    return Problem(
        id=row["name"],
        kind=row["kind"],
        question=row["question"],
        gold=row["gold"],
        language=row["language"],
        level=row["level"],
    )
