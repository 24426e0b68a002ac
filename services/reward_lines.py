"""Rewards of JSON lines: what ``r1 verify`` and ``r1 reward`` say, line by line.

    {"kind": …, "problem": …, "gold": …, "completion": …, "language": …}         in
    {"verdict": …, "parts": {…}, "total": …, "reason": …}                        out

Lines are answered in their order, each as soon as it can be, in memory that does not depend on how
many there are. A line that is no such object ends it, named by its number. ``audit_lines`` compares
a judge with the rules on the same lines.
"""

import json
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, Final, NamedTuple, TypeVar

from services.config import RewardWeights, Shaping
from services.errors import ProblemError, R1Error, RewardError
from services.prompts import Format, parse
from services.rewards import NO_SHAPING, score
from services.scoring import ScoringPool
from services.types import Judgement, Kind, Problem, Score, Verdict
from services.verifiers import UNRULED, verifier_for
from services.verifiers.judge import Agreement, Judge, audit

Line = str | bytes
"""A line of input; bytes are read as UTF-8."""

_AHEAD: Final = 512
"""So many lines are read before the first of them is answered; bounds memory on endless input."""
_BOM: Final = b"\xef\xbb\xbf"
_MEND: Final = (
    'Write {"kind": "math", "problem": "…", "gold": "…", "completion": "…", "language": "en"} '
    "on one line"
)
_Row = TypeVar("_Row")


class _Line(NamedTuple):
    number: int
    problem: Problem
    completion: str
    tokens: int | None


class _Judged(NamedTuple):
    line: _Line
    judgement: Judgement


def verify_lines(lines: Iterable[Line]) -> Iterator[str]:
    """Verdicts of JSON lines, one line each. A completion may be whole, or the answer alone.

    Raises:
        ProblemError: A line is not a problem with a completion; the message names the line.
        RewardError: The verifier of a line lacks something, such as a sandbox.
    """
    with ScoringPool() as pool:
        for row in _judged(pool, lines, _whole, without=UNRULED):
            yield _as_json(_accuracy_alone(row.judgement))


def reward_lines(
    lines: Iterable[Line],
    weights: RewardWeights,
    *,
    form: Format = "r1",
    shaping: Shaping = NO_SHAPING,
    target_language: str = "",
    max_tokens: int = 0,
) -> Iterator[str]:
    """Rewards of JSON lines, one line each, by the formula of a recipe.

    Args:
        lines: The input.
        weights: Weights of the formula.
        form: The format of the completions.
        shaping: Optional parts; those by length need ``tokens`` in every line.
        target_language: Language of the thoughts; by default each line's.
        max_tokens: Length limit that the shaping by length refers to.

    Raises:
        ProblemError: A line is not a problem with a completion; the message names the line.
        RewardError: The verifier of a line lacks something, such as a sandbox.
    """
    by_length = bool(shaping.overlong or shaping.length)
    with ScoringPool(form=form) as pool:
        for (number, problem, completion, tokens), judgement in _judged(pool, lines, str):
            if by_length and tokens is None:
                raise ProblemError(
                    f"line {number} has no tokens, and this formula looks at the length",
                    'Give the length of each completion, as in "tokens": 120',
                )
            scored = score(
                problem,
                completion,
                weights=weights,
                judgement=judgement,
                target_language=target_language or None,
                form=form,
                shaping=shaping,
                tokens=tokens or 0,
                max_tokens=max_tokens,
            )
            yield _as_json(scored)


def audit_lines(lines: Iterable[Line], judge: Judge | None = None) -> Agreement:
    """How far a judge agrees with the rules on JSON lines that rules can check.

    Args:
        lines: As for ``verify_lines``; lines of kinds without a rule count as unscorable.
        judge: The judge to audit; by default that of the environment.

    Raises:
        ProblemError: A line is not a problem with a completion; the message names the line.
        JudgeError: The environment names no judge.
    """
    judge = judge or Judge.from_environment()
    with ScoringPool() as pool:
        rows = (
            (line.problem, parse(_whole(line.completion)).answer, judgement.verdict)
            for line, judgement in _judged(pool, lines, _whole, without=UNRULED | {"judge"})
        )
        return audit(judge, rows)


def _judged(
    pool: ScoringPool,
    lines: Iterable[Line],
    completion_of: Callable[[str], str],
    *,
    without: frozenset[Kind] = frozenset(),
) -> Iterator[_Judged]:
    """Lines with the word of their verifiers, in order; kinds ``without`` are not asked."""
    nobody = Judgement(Verdict.UNSCORABLE, "no rule verifies this kind")

    def begin() -> Iterator[tuple[_Line, Callable[[], Judgement]]]:
        for number, text in enumerate(lines, start=1):
            if text.strip():
                line = _read(text, number)
                if line.problem.kind in without:
                    yield line, lambda: nobody
                else:
                    yield line, pool.judge(line.problem, completion_of(line.completion)).result

    with closing(_read_ahead(begin(), _AHEAD)) as begun:
        for line, result in begun:
            try:
                judgement = result()
            except R1Error as error:
                raise RewardError(f"line {line.number}: {error.what}", error.mend) from error
            yield _Judged(line, judgement)


def _read_ahead(rows: Iterator[_Row], most: int) -> Generator[_Row, None, None]:
    """The same rows, taken in a thread of their own, up to ``most`` before they are asked for.

    So what is known is said while more input is awaited, and children work while it comes in.
    """
    taken: queue.SimpleQueue[_Row | BaseException | None] = queue.SimpleQueue()
    room, left = threading.Semaphore(most), threading.Event()

    def take() -> None:
        try:
            for row in rows:
                taken.put(row)
                room.acquire()
                if left.is_set():
                    return
            taken.put(None)
        except BaseException as error:
            taken.put(error)  # raised where the rows are asked for

    threading.Thread(target=take, daemon=True).start()
    try:
        while (row := taken.get()) is not None:
            if isinstance(row, BaseException):
                raise row
            yield row
            room.release()
    finally:
        left.set()
        room.release()


def _accuracy_alone(judgement: Judgement) -> Score:
    if judgement.verdict is Verdict.UNSCORABLE:
        return Score(*judgement, {}, None)
    accuracy = float(judgement.verdict is Verdict.CORRECT)
    return Score(*judgement, {"accuracy": accuracy}, accuracy)


def _whole(completion: str) -> str:
    return completion if "<answer>" in completion else f"<answer>{completion}</answer>"


def _read(line: Line, number: int) -> _Line:
    try:
        text = line if isinstance(line, str) else line.removeprefix(_BOM).decode()
        row = json.loads(text)
    except UnicodeDecodeError as error:
        raise ProblemError(
            f"line {number} is not UTF-8: {error}", "Convert it, for instance with iconv -t UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"line {number} is not JSON: {error}", _MEND) from error
    if not isinstance(row, dict):
        raise ProblemError(f"line {number} is not a JSON object", _MEND)
    kind = _text(row, "kind", number)
    if kind not in UNRULED:
        try:
            verifier_for(kind)
        except ProblemError as error:
            raise ProblemError(f"line {number}: {error.what}", error.mend) from error
    gold = row.get("gold", "" if kind in UNRULED else None)
    if gold is None or isinstance(gold, bool):
        raise ProblemError(f"line {number} has no gold", _MEND)
    tokens = row.get("tokens")
    if tokens is not None and (type(tokens) is not int or tokens < 0):
        raise ProblemError(f"line {number}: tokens is no length", 'Write it as "tokens": 120')
    problem = Problem(
        id=f"line-{number}",
        kind=kind,
        question=_text(row, "problem", number, default=""),
        gold=gold if isinstance(gold, str) else json.dumps(gold),
        language=_text(row, "language", number, default="en"),
    )
    return _Line(number, problem, _text(row, "completion", number), tokens)


def _text(row: dict[str, Any], key: str, number: int, default: str | None = None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str):
        raise ProblemError(f"line {number} has no {key}, or one that is no text", _MEND)
    return value


def _as_json(score: Score) -> str:
    row = {
        "verdict": score.verdict.value,
        "parts": dict(score.parts),
        "total": score.total,
        "reason": score.reason,
    }
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()
