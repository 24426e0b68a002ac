"""What can be counted in a chain of thought, and in many of them.

Reflective words are the ten of the paper (v2, figure 9a) and their Chinese forms. Attempts, slips
and repetitions are read off countdown traces (``3 +5 =8 -7 =1``), whoever wrote them; for other
kinds they stay zero. Nothing here rewards anything: these are the instruments.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from services.language import language_share
from services.prompts import Format, parse
from services.types import Problem, TraceFacts, Verdict

REFLECTIVE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "wait": ("wait", "等等"),
    "mistake": ("mistake", "失误"),
    "however": ("however", "然而"),
    "but": ("but", "但是"),
    "retry": ("retry", "重试"),
    "error": ("error", "错误"),
    "verify": ("verify", "验证"),
    "wrong": ("wrong", "错了"),
    "evaluate": ("evaluate", "评估"),
    "check": ("check", "检查"),
}
"""The paper's words, each with the forms it is counted in."""

_REFLECTIVE = re.compile(
    "|".join(
        rf"\b{form}\b" if form.isascii() else form
        for forms in REFLECTIVE_WORDS.values()
        for form in forms
    ),
    re.IGNORECASE,
)
_FORM_TO_WORD: Final = {form: word for word, forms in REFLECTIVE_WORDS.items() for form in forms}
_ATTEMPT = re.compile(r"(?P<second_look>(?:verify|验证) : )?(?P<steps>\d+(?: [+-]\d+ =-?\d+)+)")
_STEP = re.compile(r"([+-])(\d+) =(-?\d+)")
_NO_ANSWER: Final = {"none", "无", ""}


def count_reflective_words(text: str) -> int:
    """How many reflective words a text holds."""
    return sum(1 for _ in _REFLECTIVE.finditer(text))


def reflective_word_counts(text: str) -> dict[str, int]:
    """The same by word of the paper's list; words that do not occur are left out."""
    counts: dict[str, int] = {}
    for match in _REFLECTIVE.finditer(text):
        word = _FORM_TO_WORD[match.group().lower()]
        counts[word] = counts.get(word, 0) + 1
    return counts


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
