r"""Countdown: does this expression make the target from the given numbers?

The reference is a JSON object: ``{"numbers": [9, 1, 3], "target": 11, "ordered": true,
"operators": "+-"}``. ``ordered`` (default false) keeps the numbers in place, ``operators``
(default ``+-*/``) says which may be used. Every number is used exactly once.

The answer is an expression, or holds one in its last ``\boxed{…}``. Policy where people differ:

- ``9 - 1 + 3 = 11`` is right if its right side is the target and wrong otherwise.
- ``×``, ``÷``, ``·``, ``−``, ``\times``, ``\div`` and ``\cdot`` are operators; ``\frac`` not.
- Values are exact fractions: ``8 / 3 * 3`` is 8. A division by zero is a wrong answer.
- A sign before the first number, powers, decimals and words are no part of an expression.
"""

import json
import operator
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from services.prompts import last_boxed
from services.types import Judgement, Problem, Verdict

Value = int | Fraction

_APPLY: Final[dict[str, Callable[[Value, Value], Value]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: Fraction(left) / right,
}
_PRECEDENCE: Final = {"+": 1, "-": 1, "*": 2, "/": 2}
_SPELLINGS: Final = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "⋅": "*", "÷": "/"})
_LATEX: Final = {"\\times": "*", "\\cdot": "*", "\\div": "/", "\\left": "", "\\right": ""}
_LATEX_WORD: Final = re.compile("|".join(re.escape(word) + "(?![a-z])" for word in _LATEX))
_TOKEN: Final = re.compile(r"[0-9]{1,12}(?![0-9.,])|[-+*/()]|\S+")
_SYMBOLS: Final = frozenset("+-*/()")
_MAX_CHARACTERS = 1_000
_GIVEN_UP: Final = frozenset({"", "none", "无"})


class _Puzzle(NamedTuple):
    numbers: tuple[int, ...]
    target: int
    ordered: bool
    operators: frozenset[str]


class _NotAnExpression(ValueError):
    """The text is no expression; the message says where."""


def verify(problem: Problem, answer: str) -> Judgement:
    """Judge an expression by its numbers, its operators and its value."""
    try:
        puzzle = _read_puzzle(problem.gold)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return Judgement(Verdict.UNSCORABLE, f"the reference is no puzzle: {error!r}"[:300])
    boxed = last_boxed(answer)
    text = (answer if boxed is None else boxed).strip().strip("$").rstrip(".。 ").strip()
    if text.lower() in _GIVEN_UP:
        return Judgement(Verdict.WRONG, "no expression is given")
    try:
        wrong = _fault(puzzle, text)
    except _NotAnExpression as error:
        wrong = str(error)
    if wrong is not None:
        return Judgement(Verdict.WRONG, wrong)
    return Judgement(Verdict.CORRECT, "the expression makes the target")


@lru_cache(maxsize=4096)
def _read_puzzle(gold: str) -> _Puzzle:
    value = json.loads(gold)
    numbers = value["numbers"]
    if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("numbers must be whole and not negative")
    operators = frozenset(value.get("operators", "+-*/"))
    if not operators <= _APPLY.keys():
        raise ValueError(f"unknown operators {sorted(operators - _APPLY.keys())}")
    target = value["target"]
    if type(target) is not int:
        raise ValueError("the target must be a whole number")
    return _Puzzle(tuple(numbers), target, value.get("ordered") is True, operators)


def _fault(puzzle: _Puzzle, text: str) -> str | None:
    """What is wrong with an expression, or None."""
    if len(text) > _MAX_CHARACTERS:
        raise _NotAnExpression("the expression is too long")
    expression, *stated = text.split("=")
    tokens = _tokens(expression)
    numbers = [token for token in tokens if isinstance(token, int)]
    if puzzle.ordered and tuple(numbers) != puzzle.numbers:
        return "the numbers are not those given, in their order"
    if sorted(numbers) != sorted(puzzle.numbers):
        return "the numbers are not those given, each once"
    foreign = {token for token in tokens if token in _APPLY} - puzzle.operators
    if foreign:
        return f"{' '.join(map(str, foreign))} is not allowed"
    try:
        value = _evaluate(tokens)
    except ZeroDivisionError:
        return "divides by zero"
    if value != puzzle.target:
        return f"makes {value}, not {puzzle.target}"
    for side in stated:
        if _evaluate(_tokens(side)) != puzzle.target:
            return "states another value than the target"
    return None


def _tokens(text: str) -> list[int | str]:
    if not text.isascii() or "\\" in text:
        text = text.translate(_SPELLINGS)
        text = _LATEX_WORD.sub(lambda match: _LATEX[match.group()], text)
    tokens: list[int | str] = []
    for token in _TOKEN.findall(text):
        if token in _SYMBOLS:
            tokens.append(token)
        elif token.isascii() and token.isdigit() and len(token) <= 12:
            tokens.append(int(token))
        else:
            raise _NotAnExpression(f"not an expression at {token[:20]!r}")
    return tokens


def _evaluate(tokens: Sequence[int | str]) -> Value:
    """The value of a token list by two stacks, so that no depth of brackets overflows."""
    values: list[Value] = []
    pending: list[str] = []

    def apply_down_to(level: int) -> None:
        while pending and pending[-1] != "(" and _PRECEDENCE[pending[-1]] >= level:
            right, left = values.pop(), values.pop()
            values.append(_APPLY[pending.pop()](left, right))

    operand_next = True
    for token in tokens:
        if operand_next != (isinstance(token, int) or token == "("):
            raise _NotAnExpression(f"not an expression: {token} is out of place")
        if isinstance(token, int):
            values.append(token)
            operand_next = False
        elif token == "(":
            pending.append(token)
        elif token == ")":
            apply_down_to(1)
            if not pending:
                raise _NotAnExpression("not an expression: a bracket is never opened")
            pending.pop()
        else:
            apply_down_to(_PRECEDENCE[token])
            pending.append(token)
            operand_next = True
    apply_down_to(1)
    if operand_next or pending:
        raise _NotAnExpression("not an expression: it breaks off")
    return values[0]
