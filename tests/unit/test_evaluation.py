"""The evaluation's arithmetic, written out by hand."""

import pytest

from services.errors import RewardError
from services.evaluation import summarise
from services.metrics import Scored, batch_metrics, majority_is_right
from services.types import Completion, Problem, Score, TraceFacts, Verdict


def row(
    level: int, answer: str, *, right: bool | None, tokens: int = 4, **facts: int | bool
) -> Scored:
    """A scored completion; ``right`` is None where it could not be scored."""
    verdict = {True: Verdict.CORRECT, False: Verdict.WRONG, None: Verdict.UNSCORABLE}[right]
    accuracy = {} if right is None else {"accuracy": float(right)}
    text = f"<think> wait </think> <answer> {answer} </answer>"
    return Scored(
        Problem(f"p{level}", "countdown", "?", "", "en", level),
        Completion(text, tuple(range(tokens)), (), False),
        Score(
            verdict,
            "the judge did not answer" if right is None else "",
            {**accuracy, "format": 1.0, "language": 1.0},
            None if right is None else 1.0 + right,
        ),
        TraceFacts(reflective_words=1, language_share=1.0, **facts),
    )


def test_levels_weigh_the_same_and_majority_decides_cons():
    easy = [row(3, "1 +2", right=True), row(3, "1 +2", right=True), row(3, "1 -2", right=False)]
    hard = [row(4, "none", right=False), row(4, "none", right=False), row(4, "9", right=True)]
    more = [row(4, "9", right=True), row(4, "9", right=True), row(4, "9", right=True)]
    summary = summarise([easy, hard, more], k=3)
    assert summary["pass@1/level_3"] == pytest.approx(2 / 3)
    assert summary["pass@1/level_4"] == pytest.approx(4 / 6)
    assert summary["pass@1"] == pytest.approx((2 / 3 + 4 / 6) / 2)
    assert summary["cons@3"] == pytest.approx((1 + 0.5) / 2)
    assert summary["pass@3"] == 1.0


def test_the_earliest_answer_wins_a_tie():
    right, wrong = row(3, "a", right=True), row(3, "b", right=False)
    assert majority_is_right([right, wrong])
    assert not majority_is_right([wrong, right])


def test_metrics_leave_out_what_has_no_population():
    values = batch_metrics([row(3, "a", right=True, tokens=10), row(3, "b", right=True, tokens=20)])
    assert values["length/mean"] == values["length/right"] == 15
    assert "length/wrong" not in values
    assert "slips" not in values, "no steps were stated"
    assert values["reward/total"] == 2.0


def test_slips_are_per_step_and_repetitions_per_attempt():
    rows = [
        row(3, "a", right=True, steps=6, slips=1, attempts=3, repeated_attempts=1),
        row(3, "a", right=True, steps=2, slips=1, attempts=1),
    ]
    values = batch_metrics(rows)
    assert values["slips"] == 2 / 8
    assert values["repeated_attempts"] == 1 / 4
    assert values["attempts/mean"] == 2


def test_unscorable_rows_are_counted_and_are_neither_right_nor_wrong():
    rows = [row(3, "a", right=True), row(3, "b", right=False, tokens=8)]
    lost = [row(3, "b", right=None, tokens=99), row(3, "b", right=None, tokens=99)]
    plain, mixed = batch_metrics(rows), batch_metrics(rows + lost)
    for name in ("accuracy", "accuracy/level_3", "length/right", "length/wrong", "reward/total"):
        assert mixed[name] == plain[name], name
    assert (mixed["unscorable"], mixed["unscorable/rows"]) == (0.5, 2.0)
    assert not {"accuracy", "accuracy/level_3", "reward/total"} & batch_metrics(lost).keys()


def test_an_evaluation_leaves_unscorable_rows_out():
    right, wrong, lost = (row(3, a, right=r) for a, r in (("1", True), ("2", False), ("2", None)))
    summary = summarise([[right, wrong, lost], [lost, lost, lost]], k=3)
    assert (summary["pass@1"], summary["cons@3"], summary["unscorable"]) == (0.5, 1.0, 4 / 6)
    with pytest.raises(RewardError, match="the judge did not answer"):
        summarise([[lost]], k=1)


def test_majority_is_about_the_answer_in_the_box():
    texts = (r"It is \boxed{4}.", r"So \boxed{4}", r"\boxed{5}")
    group = [
        row(3, "", right=place < 2)._replace(
            completion=Completion(f"so </think> {text}", (1,), (), False)
        )
        for place, text in enumerate(texts)
    ]
    assert majority_is_right(group[::-1], "boxed-open")
