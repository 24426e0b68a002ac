"""Every task of the library reasoning-gym, by its own scoring: kind ``reasoning_gym/<task>``.

The reference is the library's entry as JSON: ``{"question": …, "answer": …, "metadata": {…}}``.
Only full marks count as correct; partial credit is a shaping that the paper's rule rewards do not
have. An answer equal to the entry's own is correct without asking. Where a task gives full marks to
nonsense (0.1.25: *game_of_life_halting* compares truth values of strings), nothing else is. Where
it raises, the answer is wrong if the entry's own answer passes, otherwise the row is unscorable.

Some tasks of the library read answers with ``eval`` or sympy's ``parse_expr``, so a policy could
run code. Which ones is read off their source. Their answers may hold no attribute, no call but of
the usual functions, no comment and no backslash; others are wrong before the library sees them.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, Final

from services.errors import ProblemError
from services.prompts import last_boxed
from services.types import Judgement, Problem, Verdict

PREFIX: Final = "reasoning_gym/"
_MOST_CHARACTERS = 20_000
_FULL_MARKS = 1.0
_NONSENSE = "zzz qqq"
_EVALUATES: Final = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")
_DANGEROUS: Final = re.compile(
    r"__|[#\\`;@]|\.\s*[^\W\d]|\b(?:lambda|import)\b"
    r"|(?<![\w.])(?!(?:sin|cos|tan|sec|csc|cot|exp|log|ln|sqrt|abs|Abs)\s*\()[^\W\d]\w*\s*\("
    r"|[\])}\"']\s*\(|(?:\*\*|\^)\s*\(*\d{5,}|(?:\*\*|\^)[^+\-,]*(?:\*\*|\^)"
)

Marks = Callable[[str, dict[str, Any]], float]


def verify(problem: Problem, answer: str) -> Judgement:
    """Ask the task of the problem's kind for its marks."""
    task = problem.kind.removeprefix(PREFIX)
    if task not in _datasets():
        return Judgement(Verdict.UNSCORABLE, f"reasoning-gym has no task {task!r}")
    try:
        entry = _read_entry(problem.gold)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return Judgement(Verdict.UNSCORABLE, f"the reference is no entry: {error!r}"[:300])
    boxed = last_boxed(answer)
    text = (answer if boxed is None else boxed).strip()
    if entry["answer"] is not None and text == str(entry["answer"]).strip():
        return Judgement(Verdict.CORRECT, "is the reference")
    if not text or len(text) > _MOST_CHARACTERS:
        return Judgement(Verdict.WRONG, "the answer is empty" if not text else "too long")
    if evaluates_answers(task) and _DANGEROUS.search(text):
        return Judgement(Verdict.WRONG, "the answer is code, not a value")
    try:
        marks = _marks(task, text, _as_made(task, problem.gold))
    except Exception as error:
        # The library's hundred tasks fail in as many ways on text they did not foresee.
        verdict = Verdict.WRONG if _accepts_itself(task, problem.gold) else Verdict.UNSCORABLE
        return Judgement(verdict, f"{task} cannot read the answer: {error!r}"[:300])
    if marks < _FULL_MARKS:
        return Judgement(Verdict.WRONG, f"{marks:g} of 1 mark")
    if _accepts_nonsense(task, problem.gold):
        return Judgement(Verdict.WRONG, f"is not the reference, and {task} accepts anything")
    return Judgement(Verdict.CORRECT, "full marks")


def _marks(task: str, answer: str, entry: dict[str, Any]) -> float:
    return float(_scorer(task)(answer, entry))


@lru_cache(maxsize=1024)
def _as_made(task: str, gold: str) -> dict[str, Any]:
    """The entry as its task made it: JSON has no tuples, and some tasks compare with them."""
    entry = _read_entry(gold)
    frozen = {**entry, "metadata": _with_tuples(entry["metadata"])}
    lists, tuples = (_marks_of_itself(task, form) for form in (entry, frozen))
    return frozen if tuples > lists else entry


def _with_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _marks_of_itself(task: str, entry: dict[str, Any]) -> float:
    """Marks of the entry's own answer; 0 where the task cannot read it."""
    with suppress(Exception):
        return 0.0 if entry["answer"] is None else _marks(task, str(entry["answer"]), entry)
    return 0.0


def _accepts_itself(task: str, gold: str) -> bool:
    return _marks_of_itself(task, _as_made(task, gold)) > 0.0


@lru_cache(maxsize=1024)
def _accepts_nonsense(task: str, gold: str) -> bool:
    with suppress(Exception):
        return _marks(task, _NONSENSE, _as_made(task, gold)) >= _FULL_MARKS
    return False


def tasks() -> list[str]:
    """Names of all tasks of the installed library.

    Raises:
        ProblemError: The library is not installed.
    """
    return sorted(_datasets())


@cache
def evaluates_answers(task: str) -> bool:
    """Whether the source of a task evaluates text as code."""
    module = sys.modules[_datasets()[task][0].__module__]
    return _EVALUATES.search(inspect.getsource(module)) is not None


@lru_cache(maxsize=1024)
def _read_entry(gold: str) -> dict[str, Any]:
    entry = json.loads(gold)
    if not isinstance(entry["metadata"], dict):
        raise TypeError("metadata is no object")
    return {"question": str(entry["question"]), "answer": entry["answer"], **entry}


@cache
def _scorer(task: str) -> Marks:
    from reasoning_gym import get_score_answer_fn

    score: Callable[..., float] = get_score_answer_fn(task)
    return lambda answer, entry: score(answer=answer, entry=entry)


def _datasets() -> dict[str, Any]:
    try:
        import reasoning_gym  # registers the tasks
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ProblemError(
            "the kind reasoning_gym/… needs the library reasoning-gym",
            "Install it with: pip install reasoning-gym",
        ) from error
    del reasoning_gym
    datasets: dict[str, Any] = DATASETS
    return datasets
