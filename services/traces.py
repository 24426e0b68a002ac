"""What can be counted in a chain of thought, and in many of them.

Reflective words are those of ``services.reflection``. Attempts, slips and repetitions are read off
countdown traces (``3 +5 =8 -7 =1``), whoever wrote them; for other kinds they stay zero. Nothing
here rewards anything: these are the instruments.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from services.language import language_share
from services.prompts import Format, parse
from services.reflection import count_reflective_words
from services.types import Problem, TraceFacts, Verdict

_ATTEMPT = re.compile(r"(?P<second_look>(?:verify|验证) : )?(?P<steps>\d+(?: [+-]\d+ =-?\d+)+)")
_STEP = re.compile(r"([+-])(\d+) =(-?\d+)")
_NO_ANSWER: Final = {"none", "无", ""}


class Attempt(NamedTuple):
    """One try at a countdown puzzle as a trace states it."""

    signs: tuple[int, ...]
    steps: int
    slips: int
    """Steps with a wrong number or a wrong value, and steps too many or too few."""
    stated_value: int


def read_attempts(think: str, numbers: Sequence[int]) -> list[Attempt]:
    """All first looks at a sign pattern, in order; second looks (``verify : …``) are left out."""
    attempts = []
    for match in _ATTEMPT.finditer(think):
        if match["second_look"]:
            continue
        attempts.append(_read_attempt(match["steps"], numbers))
    return attempts


def _read_attempt(text: str, numbers: Sequence[int]) -> Attempt:
    first, _, rest = text.partition(" ")
    steps = [(1 if s == "+" else -1, int(n), int(v)) for s, n, v in _STEP.findall(rest)]
    slips = int(int(first) != numbers[0]) + abs(len(steps) - (len(numbers) - 1))
    value = int(first)
    for expected, (sign, number, stated) in zip(numbers[1:], steps, strict=False):
        slips += int(number != expected or stated != value + sign * number)
        value = stated
    return Attempt(tuple(sign for sign, _, _ in steps), len(steps), slips, value)


def facts_of(
    problem: Problem,
    completion: str,
    verdict: Verdict,
    *,
    truncated: bool = False,
    form: Format = "r1",
) -> TraceFacts:
    """Read the facts of one completion in a format."""
    think, answer, _ = parse(completion, form)
    share = language_share(think, problem.language)
    words = count_reflective_words(completion)
    if problem.kind != "countdown":
        return TraceFacts(reflective_words=words, language_share=share)
    attempts = read_attempts(think, numbers_and_target(problem.gold)[0])
    patterns = [attempt.signs for attempt in attempts]
    gave_up = answer.strip() in _NO_ANSWER and not truncated
    return TraceFacts(
        reflective_words=words,
        language_share=share,
        gave_up=gave_up,
        attempts=len(attempts),
        repeated_attempts=len(patterns) - len(set(patterns)),
        steps=sum(attempt.steps for attempt in attempts),
        slips=sum(attempt.slips for attempt in attempts),
        false_claim=verdict is Verdict.WRONG and not gave_up and not truncated,
    )


@lru_cache(maxsize=4096)
def numbers_and_target(gold: str) -> tuple[tuple[int, ...], int]:
    """The puzzle in the reference of a countdown problem."""
    puzzle = json.loads(gold)
    return tuple(puzzle["numbers"]), int(puzzle["target"])
