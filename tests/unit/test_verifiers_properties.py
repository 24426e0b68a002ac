"""No input raises out of the reward layer, and none holds it up."""

import json
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.config import RewardWeights
from services.errors import ProblemError
from services.language import LANGUAGES, dominant_language, language_share
from services.prompts import FORMATS, Format, last_boxed, parse
from services.reward_lines import reward_lines
from services.rewards import score
from services.scoring import INSTANT, ScoringPool
from services.types import Problem, Score, Verdict
from services.verifiers import choice, countdown, math, verifier_for

WEIGHTS = RewardWeights(language=1.0)
PUZZLE = json.dumps({"numbers": [9, 1, 3], "target": 11})

anything = st.text(st.characters(exclude_categories=()), max_size=300)
mathematics = st.lists(
    st.sampled_from(
        [
            *r"0123456789+-*/^=(){}[]<>,.;:!%$|_\ xyπ∞√°−×",
            "\n",
            "\\frac{",
            "\\sqrt{",
            "\\boxed{",
            "\\text{",
            "\\left(",
            "\\infty",
            "\\cup",
            "\\pm ",
        ]
    ),
    max_size=30,
).map("".join)
tagged = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            "\\boxed{",
            "}",
            "{",
            "9 -1 +3",
            "wait",
            "等等",
            "です",
            "\ud800",
            "\x00",
            "`",
            "$",
            '"',
            "\\[",
            "\n",
            " ",
        ]
    ),
    max_size=30,
).map("".join)

MEGABYTE = 1_000_000
EXTREMES = {
    "nesting": "(" * 10_000 + "1" + ")" * 10_000,
    "braces": "{" * 10_000 + "}" * 10_000,
    "fractions": r"\frac{" * 10_000,
    "boxes": r"\boxed{" * 10_000 + "1" + "}" * 10_000,
    "thoughts": "<think>" * 10_000 + "</think>" * 10_000,
    "JSON": "[" * 10_000 + "]" * 10_000,
    "powers": "9^9^9^9",
    "powers in braces": "9^{9^{9^{9}}}",
    "factorials": "9!!!!!!",
    "NUL": "\x00" * 100,
    "surrogates": "\ud800\udfff" * 100,
    **{
        f"a megabyte of {unit!r}": unit * (MEGABYTE // len(unit))
        for unit in (
            "x",
            " ",
            "9",
            "9 ",
            "x ",
            "好",
            "好 ",
            "の",
            "é",
            "\u0301",
            "`",
            "```\n",
            "$",
            "$ ",
            "\\[",
            "\\(",
            '"',
            '" ',
            "<a",
            "://",
            "«",
            "(",
            "-",
            "x'",
            ",",
            "9,",
            "\n",
            "1/",
            "<think>",
            "</answer>",
            "\\boxed{",
            "A or ",
            "\u200f",
            "１",
        )
    },
}


@pytest.fixture(scope="module")
def pool() -> Iterator[ScoringPool]:
    with ScoringPool(1, seconds=5.0) as pool:
        yield pool


def golds(text: str) -> Iterator[tuple[str, str]]:
    """Kinds with a good reference and with the text as reference."""
    for kind, gold in (("countdown", PUZZLE), ("exact", "Paris"), ("choice", "B")):
        yield kind, gold
        yield kind, text


def assert_whole(scored: Score) -> None:
    """A score is of one piece: its total is there unless it is unscorable, its parts are shares."""
    assert (scored.total is None) == (scored.verdict is Verdict.UNSCORABLE)
    assert all(0.0 <= value <= 1.0 for value in scored.parts.values())
    assert scored.reason


@given(anything | tagged, st.sampled_from(LANGUAGES), st.sampled_from(FORMATS))
@settings(max_examples=300, deadline=None)
def test_any_completion_has_a_score(text: str, language: str, form: Format) -> None:
    for kind, gold in golds(text):
        problem = Problem("p", kind, text, gold, language)
        assert_whole(score(problem, text, weights=WEIGHTS, form=form))
        wrapped = f"<think>{text}</think><answer>{text}</answer>"
        assert_whole(score(problem, wrapped, weights=WEIGHTS, form=form))


@given(anything | mathematics)
@settings(max_examples=300, deadline=None)
def test_any_answer_is_read(text: str) -> None:
    math.read_plain(text)
    choice.read_options(text)
    last_boxed(text)


@given(gold=mathematics, answer=mathematics)
@settings(max_examples=60, deadline=None)
@example(gold="5", answer="9^9^9^9")
@example(gold="9^9^9^9", answer="5")
@example(gold="x", answer="\x00\ud800")
def test_any_mathematics_has_a_verdict(gold: str, answer: str, pool: ScoringPool) -> None:
    problem = Problem("p", "math", "", gold, "en")
    assert_whole(pool.score_all([(problem, f"<answer>{answer}</answer>")], weights=WEIGHTS)[0])


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_plain_numbers_are_equal_if_they_are(one: int, two: int) -> None:
    for dress in ("{}", "${:,}", "{}.0", "{} apples", r"\boxed{{{}}}", "x = {}"):
        problem = Problem("p", "math", "", str(one), "en")
        judgement = math.verify_plainly(problem, dress.format(two))
        assert judgement is not None
        assert (judgement.verdict is Verdict.CORRECT) == (one == two)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_countdown_agrees_with_arithmetic(numbers: list[int], data: st.DataObject) -> None:
    signs = [data.draw(st.sampled_from((1, -1))) for _ in numbers[1:]]
    value = numbers[0] + sum(s * n for s, n in zip(signs, numbers[1:], strict=True))
    target = data.draw(st.sampled_from((value, value + 1)))
    text = str(numbers[0]) + "".join(
        f" {'+' if s > 0 else '-'}{n}" for s, n in zip(signs, numbers[1:], strict=True)
    )
    gold = json.dumps({"numbers": numbers, "target": target, "ordered": True, "operators": "+-"})
    verdict = countdown.verify(Problem("p", "countdown", "", gold, "en"), text).verdict
    assert (verdict is Verdict.CORRECT) == (value == target)


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_text_has_a_score(name: str, pool: ScoringPool) -> None:
    text = EXTREMES[name]
    assert 0.0 <= language_share(text, "zh") <= 1.0
    assert 0.0 <= dominant_language(text)[1] <= 1.0
    for form in FORMATS:
        parse(text, form)
    for kind, gold in golds(text):
        assert kind in INSTANT
        assert verifier_for(kind)(Problem("p", kind, text, gold, "en"), text).reason
    completion = f"<think>{text}</think><answer>{text}</answer>"
    for gold in ("5", text):
        problem = Problem("p", "math", "", gold, "en")
        assert_whole(pool.score_all([(problem, completion)], weights=WEIGHTS)[0])


@given(anything)
@settings(max_examples=50, deadline=None)
def test_lines_of_any_text_are_written_as_json(text: str) -> None:
    line = json.dumps({"kind": "exact", "gold": text, "problem": text, "completion": text})
    [written] = reward_lines([line], WEIGHTS)
    assert set(json.loads(written)) == {"verdict", "parts", "total", "reason"}
    written.encode()


@given(st.binary(max_size=200) | anything.map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=100, deadline=None)
@example(b"\x00")
@example(b'{"kind": "exact", "gold": "\\ud800", "completion": "\\ud800", "language": "\\ud800"}')
@example(b'{"kind": "exact", "gold": NaN, "completion": "\\u0000"}')
def test_any_line_has_an_answer_or_is_named(line: bytes) -> None:
    error = None
    written: list[str] = []
    try:
        written = list(reward_lines([b"", line], WEIGHTS))
    except ProblemError as named:
        error = named
    if error is not None:
        assert error.what.startswith("line 2")
    else:
        assert len(written) == bool(line.strip())
        assert all(set(json.loads(row)) >= {"verdict", "reason"} for row in written)
