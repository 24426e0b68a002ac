"""How the small world searches, and how its traces are written.

An attempt fixes a sign before each number, left to right, and keeps a running value. The first
n−2 signs are *searched*: they start anywhere and then count up like a binary number, so nothing is
tried twice. The last sign needs no search: it goes towards the target. A trace is therefore a walk
of at most 2^(n−2) attempts that always ends in a hit unless it gives up.
"""

import random
from collections.abc import Iterator, Sequence

from services.smallworld.phrases import LANGUAGES, PHRASES, Language
from services.tasks.countdown import Countdown

VERIFY_SHARE = 0.12
"""Share of hits that are looked at a second time before the answer."""


def signs_towards(puzzle: Countdown, searched: int) -> tuple[int, ...]:
    """The n−1 signs of one attempt.

    Args:
        puzzle: The puzzle.
        searched: The first n−2 signs as a binary number, most significant first, 1 = plus.
    """
    width = puzzle.level - 2
    signs = [1 if (searched >> (width - 1 - place)) & 1 else -1 for place in range(width)]
    value = puzzle.numbers[0] + sum(
        sign * number for sign, number in zip(signs, puzzle.numbers[1:-1], strict=True)
    )
    return (*signs, 1 if puzzle.target > value else -1)


def value_of(numbers: Sequence[int], signs: Sequence[int]) -> int:
    """The value of an attempt."""
    return numbers[0] + sum(s * n for s, n in zip(signs, numbers[1:], strict=True))


def steps_text(numbers: Sequence[int], signs: Sequence[int]) -> str:
    """An attempt with its running value: ``3 +5 =8 -7 =1``."""
    words = [str(numbers[0])]
    value = numbers[0]
    for sign, number in zip(signs, numbers[1:], strict=True):
        value += sign * number
        words += [f"{'+' if sign > 0 else '-'}{number}", f"={value}"]
    return " ".join(words)


def expression_text(numbers: Sequence[int], signs: Sequence[int]) -> str:
    """An attempt as a bare expression: ``3 +5 -7``."""
    terms = [f"{'+' if s > 0 else '-'}{n}" for s, n in zip(signs, numbers[1:], strict=True)]
    return " ".join([str(numbers[0]), *terms])


def walk(puzzle: Countdown, rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Attempts from a random start, counting up, until and including the one that hits."""
    patterns = 1 << (puzzle.level - 2)
    start = rng.randrange(patterns)
    for offset in range(patterns):
        signs = signs_towards(puzzle, (start + offset) % patterns)
        yield signs
        if value_of(puzzle.numbers, signs) == puzzle.target:
            return


def write_trace(
    puzzle: Countdown,
    language: Language,
    rng: random.Random,
    *,
    give_up: float,
    switching: bool = False,
) -> str:
    """One completion: a chain of thought and an answer in the R1 format.

    Args:
        puzzle: The puzzle to search.
        language: The language of the trace (of its first attempt, if it switches).
        rng: Source of every choice.
        give_up: Probability to stop after each miss.
        switching: Draw the language anew for every attempt.
    """
    fill = {"target": puzzle.target}
    words = PHRASES[language]
    parts = ["<think>", rng.choice(words.openings).format_map(fill)]
    answer = words.none
    for signs in walk(puzzle, rng):
        steps = steps_text(puzzle.numbers, signs)
        parts += [words.attempt, steps, words.stop]
        if value_of(puzzle.numbers, signs) == puzzle.target:
            parts.append(rng.choice(words.successes).format_map(fill))
            if rng.random() < VERIFY_SHARE:
                parts += [words.verify, steps, words.stop, words.verified]
            answer = expression_text(puzzle.numbers, signs)
            break
        parts.append(rng.choice(words.failures).format_map(fill))
        if rng.random() < give_up:
            parts.append(words.give_up)
            answer = words.none
            break
        if switching:
            words = PHRASES[rng.choice(LANGUAGES)]
        parts.append(rng.choice(words.continuations))
    parts += ["</think>", "<answer>", answer, "</answer>"]
    return " ".join(part for part in parts if part)
