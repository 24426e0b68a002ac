"""Rows of curated data sets: what was kept, what was not and why, and which checkpoint wrote it."""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Engine, func, select

from services.store.opening import reading
from services.store.schema import CuratedRows, Problems, Stages
from services.types import DropReason

MAX_ROWS = 100


class CuratedFilter(NamedTuple):
    """Which candidates of a data set; None and the empty string ask for nothing."""

    reason: str | None = None
    """How they ended, one of ``DropReason``."""
    source: str | None = None
    """Where they came from: digest of a checkpoint, or name of a written source."""
    language: str | None = None
    """Language of the question."""
    contains: str = ""
    """Text that must occur in the original; case counts only beyond ASCII on SQLite."""


class Candidate(NamedTuple):
    """One candidate of a data set, kept or dropped."""

    row: int
    """Its place in the data set, from 0."""
    problem: str
    """The id its source gave the problem."""
    kind: str
    question: str
    gold: str
    language: str
    level: int
    reason: str
    """``kept``, or why it was not."""
    source: str
    original: str
    """As it was sampled or written. Untrusted: show it as text."""
    rewritten: str
    """As it is taught; empty if dropped."""


class Checkpoint(NamedTuple):
    """The stage that a digest came out of."""

    digest: str
    run: str
    stage: str
    kind: str
    path: str
    """Folder of the artifact when it was made."""


class Example(NamedTuple):
    """The first candidate that ended one way."""

    reason: str
    row: int
    question: str
    original: str
    """Cut to ``EXAMPLE_CHARACTERS``. Untrusted: show it as text."""


EXAMPLE_CHARACTERS = 240

_CONDITIONS: dict[str, Any] = {
    "reason": lambda reason: CuratedRows.reason == reason,
    "source": lambda source: CuratedRows.source == source,
    "language": lambda language: Problems.language == language,
    "contains": lambda text: CuratedRows.original.icontains(text, autoescape=True),
}


def curated_rows(
    engine: Engine,
    run_id: str,
    stage: str,
    wanted: CuratedFilter = CuratedFilter(),  # noqa: B008 (a frozen tuple)
    *,
    limit: int = 10,
    offset: int = 0,
) -> list[Candidate]:
    """Candidates of a data set in its own order, at most ``MAX_ROWS`` at a time."""
    query = (
        select(
            CuratedRows.row,
            Problems.name.label("problem"),
            Problems.kind,
            Problems.question,
            Problems.gold,
            Problems.language,
            Problems.level,
            CuratedRows.reason,
            CuratedRows.source,
            CuratedRows.original,
            CuratedRows.rewritten,
        )
        .join(Problems, Problems.id == CuratedRows.problem_id)
        .where(CuratedRows.stage_id == _stage_of(run_id, stage), *_asked(wanted))
        .order_by(CuratedRows.row)
        .limit(min(limit, MAX_ROWS))
        .offset(offset)
    )
    with reading(engine) as connection:
        return [Candidate(*row) for row in connection.execute(query)]


def count_curated_rows(
    engine: Engine,
    run_id: str,
    stage: str,
    wanted: CuratedFilter = CuratedFilter(),  # noqa: B008 (a frozen tuple)
) -> int:
    """How many candidates of a data set are like that."""
    query = (
        select(func.count())
        .select_from(CuratedRows)
        .where(CuratedRows.stage_id == _stage_of(run_id, stage), *_asked(wanted))
    )
    if wanted.language:
        query = query.join(Problems, Problems.id == CuratedRows.problem_id)
    with reading(engine) as connection:
        return int(connection.execute(query).scalar_one())


def curation_examples(engine: Engine, run_id: str, stage: str) -> list[Example]:
    """The first candidate for each way to end that occurs, in the order of the reasons."""
    found = []
    with reading(engine) as connection:
        for reason in DropReason:
            query = (
                select(
                    CuratedRows.reason,
                    CuratedRows.row,
                    Problems.question,
                    func.substr(CuratedRows.original, 1, EXAMPLE_CHARACTERS),
                )
                .join(Problems, Problems.id == CuratedRows.problem_id)
                .where(
                    CuratedRows.stage_id == _stage_of(run_id, stage),
                    CuratedRows.reason == reason.value,
                )
                .order_by(CuratedRows.row)
                .limit(1)
            )
            found += [Example(*row) for row in connection.execute(query)]
    return found


def checkpoints_by_digest(engine: Engine, run_id: str, digests: list[str]) -> dict[str, Checkpoint]:
    """The stages that made some artifacts, by digest; one of this run before those of others.

    What no stage made (a base model, a written source) is left out.
    """
    query = (
        select(Stages.output_digest, Stages.run_id, Stages.name, Stages.kind, Stages.output_path)
        .where(Stages.output_digest.in_(digests), Stages.output_digest != "")
        .order_by((Stages.run_id == run_id).asc(), Stages.id)
    )
    with reading(engine) as connection:
        return {row[0]: Checkpoint(*row) for row in connection.execute(query)}


def _stage_of(run_id: str, stage: str) -> Any:
    """Number of the stage whose rows count."""
    return (
        select(func.coalesce(Stages.source_id, Stages.id))
        .where(Stages.run_id == run_id, Stages.name == stage)
        .scalar_subquery()
    )


def _asked(wanted: CuratedFilter) -> list[ColumnElement[bool]]:
    asked = {name: value for name, value in wanted._asdict().items() if value not in (None, "")}
    return [_CONDITIONS[name](value) for name, value in asked.items()]
