import pytest

from services.metrics import Scored, batch_metrics
from services.reflection import REFLECTIVE_WORDS, reflective_form_counts
from services.traces import facts_of
from services.types import Completion, Problem, Score, Verdict


def row(text: str, *, right: bool, tokens: int, kind: str = "math", language: str = "en") -> Scored:
    problem = Problem(f"p-{text}", kind, "?", "1", language, 3)
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    completion = Completion(text, tuple(range(tokens)), (), truncated=False)
    facts = facts_of(problem, text, verdict)
    return Scored(problem, completion, Score(verdict, "", {}, float(right)), facts)


def test_words_are_counted_by_form():
    text = "Wait , wait . 等等 ， 错误 。 verify : checked check"
    assert reflective_form_counts(text) == {
        "wait": 2, "等等": 1, "错误": 1, "verify": 1, "check": 1
    }  # fmt: skip


def test_each_word_is_a_metric_in_either_language():
    rows = [
        row("<think> wait , but verify : 2 </think>", right=True, tokens=10),
        row("<think> 等等 ， 检查 </think>", right=False, tokens=30, language="zh"),
        row("wait wait wait", right=True, tokens=5, kind="general"),  # reasoning alone is counted
    ]
    values = batch_metrics(rows)
    words = {name: value for name, value in values.items() if name.startswith("reflective/")}
    assert words.pop("reflective/mean") == (3 + 2) / 2
    assert words.pop("reflective/rechecking") == (1 + 1) / 2
    assert len(words) == 2 * len(REFLECTIVE_WORDS)
    there = {name: value for name, value in words.items() if value}
    assert there == {
        "reflective/en/wait": 0.5, "reflective/en/but": 0.5, "reflective/en/verify": 0.5,
        "reflective/zh/wait": 0.5, "reflective/zh/check": 0.5,
    }  # fmt: skip


def test_lengths_of_right_and_of_wrong_answers_have_their_own_spread():
    rows = [row("a", right=True, tokens=n) for n in (10, 20, 30)]
    values = batch_metrics([*rows, row("b", right=False, tokens=99)])
    assert values["length/right"] == 20
    assert values["length/right_p10"] == pytest.approx(12)
    assert values["length/right_p90"] == pytest.approx(28)
    assert values["length/wrong_p10"] == values["length/wrong_p90"] == values["length/wrong"] == 99
    assert not any(name.startswith("length/wrong") for name in batch_metrics(rows))


def test_mixing_is_the_share_of_completions_with_another_language():
    pure = row("<think> we try again </think>", right=True, tokens=4)
    mixed = row("<think> we try 等等 again </think>", right=True, tokens=4)
    assert batch_metrics([pure, pure, mixed, mixed])["language/mixed"] == 0.5
