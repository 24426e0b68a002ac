"""Problems are stored once, however often and by however many runs they are asked."""

from collections.abc import Iterable

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from services.store import rows
from services.store.schema import Problems
from services.types import Problem

_AT_A_TIME = 1000


def problem_ids(connection: Connection, problems: Iterable[Problem]) -> dict[Problem, int]:
    """Numbers of problems; those not seen before are stored."""
    distinct = list(dict.fromkeys(problems))
    ids: dict[Problem, int] = {}
    for start in range(0, len(distinct), _AT_A_TIME):
        ids |= _some_ids(connection, distinct[start : start + _AT_A_TIME])
    return ids


def _some_ids(connection: Connection, problems: list[Problem]) -> dict[Problem, int]:
    """Two writers may store the same problem at once: the first wins, none waits in a circle."""
    values = [rows.problem_row(problem) for problem in problems]
    in_one_order = sorted(values, key=lambda row: row["digest"])
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(Problems).on_conflict_do_nothing(), in_one_order)
    digests = [row["digest"] for row in values]
    known = select(Problems.digest, Problems.id).where(Problems.digest.in_(digests))
    by_digest = {row.digest: row.id for row in connection.execute(known)}
    return {problem: by_digest[digest] for problem, digest in zip(problems, digests, strict=True)}
