"""Answers that must be right: a reference turned into the answer that its verifier accepts.

A reference that does not verify against itself is a fault of the data or of the verifier, and
training on it teaches nothing. Countdown puzzles are solved, so that an unreachable target shows.
"""

import itertools
import json
from collections.abc import Iterator
from fractions import Fraction

from services.types import Problem
from services.verifiers import reasoning_gym

_MOST_NUMBERS_IN_ANY_ORDER = 4
_MOST_NUMBERS_IN_ORDER = 12


def reference_answer(problem: Problem) -> str | None:
    """An answer that must be correct; None where the reference cannot tell one.

    Kinds without one: general prompts, judged ones (asking the judge costs), code without a
    ``solution`` in its reference, puzzles of reasoning-gym with many solutions, and countdowns too
    large to search. A reference that cannot be read is handed back as it stands, to be refused by
    its verifier.
    """
    if problem.kind in ("general", "judge"):
        return None
    try:
        if problem.kind == "countdown":
            return _solve(json.loads(problem.gold))
        if problem.kind == "code":
            solution = json.loads(problem.gold).get("solution")
            return None if solution is None else str(solution)
        if problem.kind.startswith(reasoning_gym.PREFIX):
            answer = json.loads(problem.gold)["answer"]
            return None if answer is None else str(answer)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return problem.gold
    if problem.kind == "exact":
        return problem.gold.strip().partition("\n")[0]
    return rf"\boxed{{{problem.gold}}}"


def _solve(puzzle: dict[str, object]) -> str | None:
    """An expression that makes the target, "none" if there is none, None if that is too much."""
    numbers, operators = puzzle["numbers"], str(puzzle.get("operators", "+-*/"))
    if not isinstance(numbers, list) or not isinstance(target := puzzle["target"], int):
        raise TypeError("no puzzle")
    if puzzle.get("ordered") is True and set(operators) <= set("+-"):
        if len(numbers) > _MOST_NUMBERS_IN_ORDER:
            return None
        found = (text for value, text in _in_order(numbers, operators) if value == target)
    elif puzzle.get("ordered") is not True and len(numbers) <= _MOST_NUMBERS_IN_ANY_ORDER:
        start = [(Fraction(number), str(number)) for number in numbers]
        found = (text for value, text in _in_any_order(start, operators) if value == target)
    else:
        return None
    return next(found, "none")


def _in_order(numbers: list[int], operators: str) -> Iterator[tuple[int, str]]:
    for signs in itertools.product(operators, repeat=len(numbers) - 1):
        value, text = numbers[0], str(numbers[0])
        for sign, number in zip(signs, numbers[1:], strict=True):
            value += number if sign == "+" else -number
            text += f" {sign} {number}"
        yield value, text


def _in_any_order(
    parts: list[tuple[Fraction, str]], operators: str
) -> Iterator[tuple[Fraction, str]]:
    """Every value that the parts can make, by joining two of them at a time."""
    if len(parts) == 1:
        yield parts[0]
        return
    for i, j in itertools.permutations(range(len(parts)), 2):
        (left, left_text), (right, right_text) = parts[i], parts[j]
        rest = [part for place, part in enumerate(parts) if place not in (i, j)]
        for operator in operators:
            if operator == "/" and not right:
                continue
            value = {
                "+": left + right,
                "-": left - right,
                "*": left * right,
                "/": left / right if right else left,
            }[operator]
            joined = (value, f"({left_text} {operator} {right_text})")
            yield from _in_any_order([*rest, joined], operators)
