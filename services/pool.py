"""The pool of added problems: reading a file of them, refusing what must not be trained on.

A file is added whole or not at all. Each row is a problem whose reference its own verifier accepts,
that no evaluation asks and the pool does not hold yet. A retraining takes a snapshot, which its
recipe names (``services.tasks.pool``), and the store keeps which run trained on which problem.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from services.artifacts import digest_of
from services.config import Problems, Recipe
from services.errors import ProblemError
from services.reward_check import check_references
from services.store import pool as table
from services.store.opening import open_engine_to_write
from services.tasks.overlap import Known, is_held_out_puzzle, question_digest
from services.tasks.pool import NOW, read_snapshot, write_snapshot
from services.tasks.sources import read_problems
from services.types import Problem
from services.verifiers import verifier_for
from services.verifiers.references import reference_answer

if TYPE_CHECKING:
    from sqlalchemy import Engine

_MEND: Final = (
    'Write {"question": "…", "answer": "…", "kind": "math", "language": "en", "level": 0} on each '
    "line; nothing was added"
)
_NAMED_FAULTS: Final = 5
"""At most so many lines are named in one message."""
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}")


class Row(NamedTuple):
    """A problem and the line it stands on."""

    line: int
    problem: Problem


class Fault(NamedTuple):
    """A line that cannot be added, and why."""

    line: int
    why: str


def open_pool(url: str) -> "ProblemPool":
    """The pool of a store; a store that is not there is created.

    Raises:
        StoreError: The store cannot be written, or has another schema.
    """
    return ProblemPool(open_engine_to_write(url))


class ProblemPool:
    """Adds problems, counts them, and takes snapshots of them."""

    def __init__(self, engine: "Engine") -> None:
        """Use the store behind ``engine``."""
        self._engine = engine

    def add_file(
        self, path: Path, *, settings: Problems, who: str, kind: str = "", language: str = ""
    ) -> int:
        """Add the problems of a JSON lines file, all or none; how many.

        Args:
            path: JSON lines with ``question``, ``answer`` (or ``gold``), ``kind``, ``language``
                and ``level``.
            settings: Where the recipe takes its held-out problems from; none of them may be added.
            who: Who adds them.
            kind: For rows that do not say theirs; by default the recipe's.
            language: For rows that do not say theirs; by default the recipe's.

        Raises:
            ProblemError: Some line cannot be added; the message names the lines.
        """
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ProblemError(f"cannot read {path}: {error}", "Name a JSON lines file") from error
        rows, faults = read_rows(lines, kind or settings.kind, language or settings.language)
        if not rows and not faults:
            raise ProblemError(f"{path} holds no problem", _MEND)
        faults += self._known(rows, settings)
        faults += _unverified([row for row in rows if row.line not in {line for line, _ in faults}])
        if faults:
            raise _refusal(path, faults)
        table.add(self._engine, [row.problem for row in rows], origin=path.name, who=who)
        return len(rows)

    def problems(self) -> list[table.PooledProblem]:
        """The whole pool, oldest first."""
        return table.pooled(self._engine)

    def counts(self) -> list[table.PoolCount]:
        """The pool by kind, language and level."""
        return table.counts(self._engine)

    def unused(self) -> int:
        """How many problems no run has trained on: what makes a retraining due."""
        return table.unused(self._engine)

    def snapshot(self, home: Path) -> str:
        """Freeze the pool as it is into a file of the state folder; the digest that names it.

        Raises:
            ProblemError: The pool is empty.
        """
        problems = [row.problem for row in self.problems()]
        if not problems:
            raise ProblemError("the pool is empty", "Add some with: r1 problems add FILE")
        return write_snapshot(home, problems)

    def pinned(self, recipe: Recipe, home: Path) -> Recipe:
        """The recipe with ``problems.pool = "now"`` replaced by a snapshot of now."""
        if recipe.problems.pool != NOW:
            return recipe
        problems = recipe.problems.model_copy(update={"pool": self.snapshot(home)})
        return recipe.model_copy(update={"problems": problems})

    def mark_used(self, recipe: Recipe, home: Path, run_id: str) -> None:
        """Say that a run trains on the snapshot that its recipe names, if it names one."""
        if recipe.problems.pool and recipe.problems.pool_share:
            taken = read_snapshot(recipe.problems.pool, home)
            digests = [question_digest(problem.question) for problem in taken]
            table.mark_used(self._engine, digests, run_id)

    def _known(self, rows: Sequence[Row], settings: Problems) -> list[Fault]:
        """Rows that an evaluation asks, that the pool holds, or that the file has twice."""
        asked = table.evaluated_questions(self._engine)
        if settings.source == "jsonl" and settings.test_file:
            asked += [problem.question for problem in read_problems(settings.test_file, settings)]
        held_out = Known(asked)
        held = Known(row.problem.question for row in self.problems())
        faults = []
        for line, problem in rows:
            if is_held_out_puzzle(problem):
                faults.append(Fault(line, "these numbers belong to the held-out puzzles"))
            elif same := held_out.same_as(problem):
                faults.append(Fault(line, f"{same[0]} the held-out {same[1][:80]!r}"))
            elif same := held.same_as(problem):
                faults.append(Fault(line, f"{same[0]} {same[1][:80]!r}, which is there already"))
            else:
                held.add(problem.question)
        return faults


def read_rows(lines: Iterable[str], kind: str, language: str) -> tuple[list[Row], list[Fault]]:
    """Problems of JSON lines, and the lines that are none."""
    rows: list[Row] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(Row(number, _problem(json.loads(line), kind, language)))
        except (ValueError, RecursionError) as error:  # ProblemError and bad JSON are ValueErrors
            why = error.what if isinstance(error, ProblemError) else f"is not JSON: {error}"
            faults.append(Fault(number, why))
    return rows, faults


def _problem(row: Any, kind: str, language: str) -> Problem:
    if not isinstance(row, dict):
        raise ProblemError("is not a JSON object", _MEND)
    question = row.get("question", row.get("problem"))
    gold = row.get("gold", row.get("answer"))
    kind, language = row.get("kind", kind), row.get("language", language)
    level = row.get("level", 0)
    if not isinstance(question, str) or not question.strip():
        raise ProblemError("has no question", _MEND)
    if gold is None or isinstance(gold, bool):
        raise ProblemError("has no answer", _MEND)
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        raise ProblemError(f"has no language code such as en: {language!r}", _MEND)
    if not isinstance(level, int) or isinstance(level, bool) or level < 0:
        raise ProblemError(f"has a level that is no number from 0: {level!r}", _MEND)
    if not isinstance(kind, str):
        raise ProblemError(f"has a kind that is no text: {kind!r}", _MEND)
    verifier_for(kind)
    text = gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False)
    reference = text.rsplit("####", 1)[-1].strip() if kind == "math" else text
    if kind == "countdown" and not level and isinstance(gold, dict):
        numbers = gold.get("numbers")
        level = len(numbers) if isinstance(numbers, list) else 0
    identity = f"pool-{question_digest(question)[:12]}"
    return Problem(identity, kind, question, reference, language, level)


def _unverified(rows: Sequence[Row]) -> list[Fault]:
    """Rows whose reference their verifier does not accept, or that have none to try."""
    faults = [
        Fault(row.line, f"a problem of kind {row.problem.kind} without an answer to verify")
        for row in rows
        if reference_answer(row.problem) is None
    ]
    mute = {fault.line for fault in faults}
    to_try = {digest_of(row.problem.question): row.line for row in rows if row.line not in mute}
    for problem, judgement in check_references(
        [row.problem for row in rows if row.line not in mute]
    ):
        line = to_try[digest_of(problem.question)]
        why = f"its answer {problem.gold[:60]!r} does not verify against itself"
        faults.append(Fault(line, f"{why} ({judgement.reason})"))
    return faults


def _refusal(path: Path, faults: Sequence[Fault]) -> ProblemError:
    ordered = sorted(faults)
    named = "; ".join(f"line {line}: {why}" for line, why in ordered[:_NAMED_FAULTS])
    more = f"; and {len(ordered) - _NAMED_FAULTS} more" if len(ordered) > _NAMED_FAULTS else ""
    return ProblemError(f"{path}, {named}{more}", _MEND)
