"""Countdown with signs: reach a target from numbers in a fixed order with + and − alone.

The difficulty level is the count of numbers, n. There are 2^(n−1) sign patterns, so a first guess
rarely works and a persistent search always does: extra tokens truly buy accuracy. Problems are
drawn from a seed and split by a hash of their numbers, so no held-out number list is ever trained
on, neither in pretraining nor in a later stage.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

HELD_OUT_BUCKETS = 10
"""One number list in this many belongs to the held-out split."""


class Countdown(NamedTuple):
    """One puzzle: ``numbers`` stay in order, each gap takes + or −, the result is ``target``."""

    numbers: tuple[int, ...]
    target: int

    @property
    def level(self) -> int:
        """Difficulty: how many numbers there are."""
        return len(self.numbers)


def is_held_out(numbers: Sequence[int]) -> bool:
    """True if this list of numbers belongs to the held-out split (stable across machines)."""
    key = ",".join(map(str, numbers)).encode()
    return hashlib.sha256(key).digest()[0] % HELD_OUT_BUCKETS == 0


def draw(rng: random.Random, level: int, *, held_out: bool = False) -> Countdown:
    """Draw one puzzle of ``level`` numbers from 1–9 whose target some sign pattern reaches."""
    while True:
        numbers = tuple(rng.randint(1, 9) for _ in range(level))
        if is_held_out(numbers) == held_out:
            break
    target = numbers[0] + sum(number * rng.choice((1, -1)) for number in numbers[1:])
    return Countdown(numbers, target)


def draw_distinct(
    seed: int, levels: Sequence[int], *, held_out: bool = False
) -> Iterator[Countdown]:
    """Yield puzzles without repetition, cycling through ``levels``; endless as long as they last.

    Args:
        seed: Same seed, same puzzles in the same order.
        levels: Cycled through in order, so ``(3, 4, 5, 5)`` gives level 5 twice its share.
        held_out: Which split to draw from.
    """
    rng = random.Random(f"countdown:{seed}:{held_out}")
    seen: set[Countdown] = set()
    misses = 0
    position = 0
    while misses < 1000:
        puzzle = draw(rng, levels[position % len(levels)], held_out=held_out)
        if puzzle in seen:
            misses += 1
            continue
        misses = 0
        seen.add(puzzle)
        position += 1
        yield puzzle
