r"""Mathematics: does the answer mean the same as the reference?

What is compared is the last ``\boxed{…}`` of the answer; without a box the whole answer if it is
one expression, and in prose what follows *the answer is*, or the last expression in it. Plain
numbers are compared exactly and without a library; everything else is read and compared by
*math-verify* (sympy underneath).

Policy where people differ (every line stands in ``tests/golden/math_cases.json``):

- **Numbers** are exact: 1/2 = 0.5 = ``\frac12`` = 2/4, and 0.33 is not 1/3. A decimal with six
  places or more may stand for an irrational or periodic value: 0.333333 = 1/3 =
  ``0.\overline{3}``.
- **Thousands**: 1,234 = 1234 = ``1{,}234`` = 1 234. A comma with other digit groups separates
  list items, as in ``1,2``.
- **Percent**: 50% = 0.5, and 50% = 50 as people answer "what per cent"; but 50 is not 0.5.
- **Units** and currencies are dropped, not compared: 12 cm = 12, $18 = 18 dollars = 18, 60° = 60.
  Number words are no units, they multiply: 18 million = 18,000,000, 3万 = 30,000.
- **Equations**: ``x = 5`` answers 5 and 5 answers ``x = 5``; ``y = 5`` does not answer ``x = 5``.
  A chain counts by its end. Equations in several variables are compared up to a factor.
- **Sets and lists** have no order, {1, 2} = {2, 1} = ``1, 2``; pairs have: (1, 2) is not (2, 1).
- **Intervals** keep their ends: (1, 2) is not [1, 2]. ``x \le 3`` may be answered by
  ``(-\infty, 3]`` but not the reverse. Chains may run either way: 2 > x > 1 is 1 < x < 2.
- **Mixed numbers**: ``1\frac{1}{2}`` = 1 1/2 = 3/2. **Powers of ten**: 1.5e3 = 1500.
- A reference that does not parse is unscorable; an answer that does not parse is wrong, and so is
  one too large to write out, such as ``9^{9^{9}}``.

Nothing here is bounded in time: sympy can think for ever. ``services.scoring`` runs this in child
processes with a limit.
"""

import logging
import re
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from services.prompts import last_boxed
from services.types import Judgement, Problem, Verdict

_MOST_CHARACTERS = 2_000
_MOST_NESTING = 40
_APPROXIMATE_PLACES = 6

_CORRECT: Final = Judgement(Verdict.CORRECT, "means the same as the reference")
_NO_ANSWER: Final = Judgement(Verdict.WRONG, "no expression is given")


def verify(problem: Problem, answer: str) -> Judgement:
    """Compare an answer with the reference of a problem."""
    plain = verify_plainly(problem, answer)
    if plain is not None:
        return plain
    candidate, boxed = _candidate(answer)
    return _compare_by_library(problem.gold.strip(), candidate, not boxed)


def verify_plainly(problem: Problem, answer: str) -> Judgement | None:
    """The judgement where no library is needed, because both are plain; else None."""
    expected = read_plain(problem.gold)
    if expected is None:
        return None
    candidate, _ = _candidate(answer)
    if not candidate:
        return _NO_ANSWER
    given = read_plain(candidate)
    if given is None:
        return None
    same = _compare_plain(expected, given)
    if same is None:
        return None
    return _CORRECT if same else _differs(problem.gold, candidate)


def _candidate(answer: str) -> tuple[str, bool]:
    """What is compared, and whether it stood in a box."""
    boxed = last_boxed(answer)
    if boxed is None:
        return answer[-_MOST_CHARACTERS:].strip(), False
    return boxed.strip()[: _MOST_CHARACTERS + 1], True  # one more shows that it is too large


def _differs(gold: str, candidate: str) -> Judgement:
    return Judgement(Verdict.WRONG, f"{candidate[:80]} is not {gold[:80]}")


class Number(NamedTuple):
    """A plain number as it was written."""

    value: Fraction
    percent: bool
    places: int
    """Digits after the decimal point."""


_FILLER: Final = re.compile(r"\\[!,;: ]|\\(?:left|right|displaystyle)(?![A-Za-z])|~|\*\*|\$")
_CURRENCY: Final = re.compile(r"^(?:US)?(?:\\\$|[€£¥₹₩￥])\s*")
_NUMBER: Final = re.compile(
    r"(?P<sign>[+-]?)\s*(?:"
    r"(?:(?P<mixed>\d{1,15})\s*)?\\[dt]?frac\s*(?:\{\s*(?P<top>-?\d{1,40})\s*\}"
    r"\s*\{\s*(?P<bottom>\d{1,40})\s*\}|(?P<short>\d)\s*(?P<short_under>\d))"
    r"|(?P<mixed2>\d{1,15})\s+(?P<top2>\d{1,15})/(?P<bottom2>\d{1,15})"
    r"|(?P<whole>\d{1,3}(?:(?:,|\{,\}| )\d{3})+(?!\d)|\d{1,40})(?:\.(?P<places>\d{0,40}))?"
    r"(?:\s*/\s*(?P<under>\d{1,40})|[eE](?P<power>[+-]?\d{1,2})(?!\w))?"
    r"|\.(?P<only>\d{1,40})"
    r")(?![\d.,])"
)
_PERCENT: Final = re.compile(r"\s*(?:\\?%|％)|\s+(?:percent|per cent|pct)")
_UNIT: Final = re.compile(
    r"\s*(?:\\(?:text|mathrm|mbox|textrm)\s*\{(?P<text>[^{}]*)\}|\^?\{?\\circ\}?|\\degree|°[CF]?"
    r"|[€£¥₹]|(?P<han>[\u4e00-\u9fff]{1,6})"
    r"|(?:km|cm|mm|kg|mg|ml|m|g|h|s|L)(?:/(?:km|cm|m|h|s|kg|L))?)"
    r"(?:\^\{?[23]\}?|²|³)?|(?P<words>(?:\s+[A-Za-z]{2,}){1,5})"
)
_NO_UNIT: Final = re.compile(
    r"\b(?:pi|sqrt|sin|cos|tan|log|ln|exp|inf|infinity|and|or|to|by|plus|minus|times|over|mod|"
    r"half|halves|squared|cubed)\b|[一二三四五六七八九十百千万亿兆半]|分之",
    re.IGNORECASE,
)
_SCALES: Final = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1_000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "百": 100,
    "千": 1_000,
    "万": 10**4,
    "亿": 10**8,
}
_SCALE: Final = re.compile(r"\s+(dozen|hundred|thousand|million|billion|trillion)\b|([百千万亿])")
_LONGEST_NUMBER = 200


def read_number(text: str) -> Number | None:
    r"""A text that is one plain number, with its dress taken off; None for everything else.

    The dress is ``$…$``, ``\text{…}``, currencies, units, thousands separators and a full stop.
    """
    if len(text) > _LONGEST_NUMBER:
        return None
    text = _FILLER.sub("", _CURRENCY.sub("", text.strip().strip("$").strip()))
    text = text.replace("−", "-").strip().rstrip(".。").strip()
    match = _NUMBER.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    scale = _SCALE.match(rest)
    if scale is not None:
        rest = rest[scale.end() :]
    percent = _PERCENT.fullmatch(rest) is not None
    if rest and not percent and not _is_unit(rest):
        return None
    found = match.groupdict()
    places = found["places"] or found["only"] or ""
    value = _value(found, places)
    if value is None:
        return None
    if scale is not None:
        value *= _SCALES[scale[1] or scale[2]]
    return Number(-value if found["sign"] == "-" else value, percent, len(places))


def _is_unit(text: str) -> bool:
    match = _UNIT.fullmatch(text)
    if match is None:
        return False
    return _NO_UNIT.search(match["text"] or match["han"] or match["words"] or "") is None


def _value(found: dict[str, str | None], places: str) -> Fraction | None:
    if found["whole"] or found["only"]:
        whole = re.sub(r"\D", "", found["whole"] or "0")
        value = Fraction(Decimal(f"{whole}.{places or 0}e{found['power'] or 0}"))
        under = found["under"]
        return _quotient(value, int(under)) if under else value
    top = found["top"] or found["short"] or found["top2"]
    bottom = found["bottom"] or found["short_under"] or found["bottom2"]
    mixed = found["mixed"] or found["mixed2"] or "0"
    assert top is not None
    assert bottom is not None
    part = _quotient(Fraction(int(top)), int(bottom))
    return None if part is None else int(mixed) + part


def _quotient(top: Fraction, bottom: int) -> Fraction | None:
    return top / bottom if bottom else None


def _compare_numbers(expected: Number, given: Number) -> bool | None:
    """Whether two numbers are the same; None if one may be an approximation of the other."""
    if expected.value == given.value:
        return True
    if expected.percent != given.percent:
        percent, plain = (expected, given) if expected.percent else (given, expected)
        return percent.value / 100 == plain.value
    if max(expected.places, given.places) >= _APPROXIMATE_PLACES:
        return None
    return False


class Plain(NamedTuple):
    """A number, or several in brackets, as they were written."""

    variable: str
    """Of ``x = 5``; empty without one."""
    brackets: str
    """``{}`` for what has no order, otherwise the two ends; empty for one number."""
    numbers: tuple[Number, ...]


_ASSIGNED: Final = re.compile(r"([A-Za-z])\s*=\s*(.+)|(.+?)\s*=\s*([A-Za-z])", re.DOTALL)
_COLLECTION: Final = re.compile(r"(\\?\{|[(\[])(.*?)(\\?\}|[)\]])", re.DOTALL)


def read_plain(text: str) -> Plain | None:
    r"""A text that is a plain number, set, list, tuple or interval of plain numbers, else None."""
    if len(text) > _LONGEST_NUMBER:
        return None
    number = read_number(text)
    if number is not None:
        return Plain("", "", (number,))
    text = text.strip().strip("$").strip().replace("\\left", "").replace("\\right", "")
    assigned = _ASSIGNED.fullmatch(text)
    variable = (assigned[1] or assigned[4]) if assigned else ""
    text = (assigned[2] or assigned[3]) if assigned else text
    brackets, inside = "{}", text
    collection = _COLLECTION.fullmatch(text)
    if collection is not None:
        brackets = (collection[1] + collection[3]).replace("\\", "")
        inside = collection[2]
    numbers = [read_number(part) for part in re.split(r",(?!\d{3}(?!\d))|;", inside)]
    if None in numbers or (collection is not None and len(numbers) < 2):
        return None
    if len(numbers) == 1:
        brackets = ""
    return Plain(variable, brackets, tuple(number for number in numbers if number is not None))


def _compare_plain(expected: Plain, given: Plain) -> bool | None:
    """Whether two plain values are the same; None if the library must say."""
    if expected.brackets != given.brackets:
        return False if "" not in (expected.brackets, given.brackets) else None
    if expected.variable and given.variable and expected.variable != given.variable:
        return False
    if expected.brackets == "{}":
        same = {n.value for n in expected.numbers} == {n.value for n in given.numbers}
        inexact = any(n.percent or n.places >= _APPROXIMATE_PLACES for n in expected.numbers)
        return True if same else None if inexact else False
    if len(expected.numbers) != len(given.numbers):
        return False
    verdicts = list(map(_compare_numbers, expected.numbers, given.numbers))
    return None if None in verdicts else all(verdicts)


_TOWER: Final = re.compile(r"\d[\s})]*(?:\^|\*\*)[\s{(]*-?\d+[\s})]*(?:\^|\*\*)")
_HUGE_POWER: Final = re.compile(r"(?:\^|\*\*)[\s{(]*-?\d{5,}|\d{5,}[\s})]*!|![\s})]*!")


def _too_large(text: str) -> bool:
    """True for what no computer writes out, or what nests deeper than any answer."""
    depth = deepest = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return (
        deepest > _MOST_NESTING
        or _TOWER.search(text) is not None
        or _HUGE_POWER.search(text) is not None
    )


_PERIODIC: Final = re.compile(
    r"(?P<whole>\d{1,15})\.(?P<once>\d{0,15})\\(?:overline|bar|dot)\s*\{?(?P<period>\d{1,15})\}?"
)
_GREATER: Final = {">": "<", "\\gt": "<", "≥": "\\le", "\\ge": "\\le", "\\geq": "\\le"}
_FALLING: Final = re.compile(
    r"(?P<most>[^<>≤≥=,;]+?)\s*(?P<one>>|≥|\\g(?:eq?|t)(?![a-z]))\s*(?P<middle>[^<>≤≥=,;\\]+?)\s*"
    r"(?P<two>>|≥|\\g(?:eq?|t)(?![a-z]))\s*(?P<least>[^<>≤≥=,;]+)"
)


def _spelled(text: str) -> str:
    """What the library does not read, in a spelling that it does."""
    text = _PERIODIC.sub(_as_fraction, text.replace("\\varnothing", "\\emptyset"))
    falling = _FALLING.fullmatch(text.strip().strip("$").strip())
    if falling is None:
        return text
    most, one, middle, two, least = falling.groups()
    return f"{least} {_GREATER[two]} {middle} {_GREATER[one]} {most}"


def _as_fraction(periodic: re.Match[str]) -> str:
    whole, once, period = periodic.groups()
    under = (10 ** len(period) - 1) * 10 ** len(once)
    above = int(whole + once + period) - int(whole + once)
    return rf"\frac{{{above}}}{{{under}}}"


@lru_cache(maxsize=16_384)
def _compare_by_library(gold: str, candidate: str, maybe_prose: bool) -> Judgement:
    if len(gold) > _MOST_CHARACTERS or _too_large(gold):
        return Judgement(Verdict.UNSCORABLE, "the reference is too large to read")
    expected = _parse_gold(_spelled(gold))
    if not expected:
        return Judgement(Verdict.UNSCORABLE, f"the reference does not parse: {gold[:80]!r}")
    if not candidate:
        return _NO_ANSWER
    if candidate.replace(" ", "") == gold.replace(" ", ""):
        return _CORRECT
    if len(candidate) > _MOST_CHARACTERS or _too_large(candidate):
        return Judgement(Verdict.WRONG, "the expression is too large to evaluate")
    given = _parse_answer(_spelled(candidate), maybe_prose)
    if not given:
        return Judgement(Verdict.WRONG, f"not an expression: {candidate[:80]!r}")
    same = _library().verify(expected, given, timeout_seconds=None)
    return _CORRECT if same else _differs(gold, candidate)


@cache
def _library() -> Any:
    """math-verify, told that time limits are ours: its own need signals in the main thread."""
    import math_verify
    from math_verify import grader, parser

    for module in (grader, parser):
        module.TIMEOUT_WARNING_SHOWN = True
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify


def _parse(text: str, *, latex_only: bool) -> list[Any]:
    library = _library()
    configs = [library.LatexExtractionConfig()]
    if not latex_only:
        configs.append(library.ExprExtractionConfig())
    parsed: list[Any] = library.parse(
        text, configs, fallback_mode="no_fallback", parsing_timeout=None
    )
    return parsed


@lru_cache(maxsize=4_096)
def _parse_gold(gold: str) -> list[Any]:
    return _parse(gold if "$" in gold else f"${gold}$", latex_only=True)


_WORD: Final = re.compile(
    r"(?<![\\A-Za-z{])(?!(?:and|sin|cos|tan|log|exp|sqrt|lim|inf|deg|mod)\b)[A-Za-z]{3,}"
)
_HAN_PROSE: Final = re.compile(r"[\u3000-\u30ff\u4e00-\u9fff\uff00-\uff0c\uff1a-\uff20]+")


def _parse_answer(candidate: str, maybe_prose: bool) -> list[Any]:
    prose = maybe_prose and (_WORD.search(candidate) or _HAN_PROSE.search(candidate))
    if prose:
        candidate = _HAN_PROSE.sub(" ", candidate)
    if prose or "$" in candidate or "\\(" in candidate or "\\[" in candidate:
        return _parse(candidate, latex_only=False)
    return _parse(f"${candidate}$", latex_only=True)
