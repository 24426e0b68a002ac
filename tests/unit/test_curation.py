"""Curation: every candidate leaves with a reason, what is kept is readable and still right."""

import json

import pytest

from services.config import Curation
from services.curation import (
    as_sampled,
    curate,
    non_reasoning_rows,
    rewrite_readable,
    summarise,
)
from services.language import language_share
from services.metrics import Scored
from services.prompts import parse
from services.traces import facts_of
from services.types import Completion, DropReason, Problem, Score, Verdict

GOLD = json.dumps({"numbers": [3, 5, 7], "target": 1, "ordered": True, "operators": "+-"})
SETTINGS = Curation(min_language_share=0.95, max_think_tokens=40, keep_per_problem=2)
RIGHT = (
    "<think> try 3 -5 =-2 +7 =5 . not 1 . wait , try 3 +5 =8 -7 =1 . yes . </think> "
    "<answer> 3 +5 -7 </answer>"
)


def scored(text: str, verdict: Verdict = Verdict.CORRECT, language: str = "en") -> Scored:
    problem = Problem("p", "countdown", "make 1 from 3 5 7", GOLD, language, 3)
    completion = Completion(text, tuple(range(len(text.split()))), (), False)
    facts = facts_of(problem, text, verdict)
    return Scored(problem, completion, Score(verdict, "", {}, 0.0), facts)


def reason_of(row: Scored, settings: Curation = SETTINGS) -> DropReason:
    (found,) = curate([[row]], settings, "source", as_sampled)
    return found.reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (scored(RIGHT), DropReason.KEPT),
        (scored(RIGHT, Verdict.WRONG), DropReason.WRONG),
        (scored(RIGHT, Verdict.UNSCORABLE), DropReason.UNSCORABLE),
        (scored(RIGHT + " more"), DropReason.FORMAT),
        (scored(RIGHT.replace("not 1 . wait ,", "不是 1 。 等等 ，")), DropReason.MIXED_LANGUAGE),
        (
            scored(RIGHT.replace("wait , try", "wait , try 3 -5 =-2 +7 =5 . but try")),
            DropReason.REPETITION,
        ),
        (scored(RIGHT.replace("=-2", "=-3").replace("=5 .", "=4 .")), DropReason.UNREADABLE),
        (scored(RIGHT.replace("yes .", "yes . " + "good . " * 20)), DropReason.UNREADABLE),
    ],
)
def test_reasons(row, reason):
    assert reason_of(row) is reason


def test_duplicates_and_quota():
    other = RIGHT.replace("wait", "retry")
    third = RIGHT.replace("wait", "but wait")
    rows = curate([[scored(t) for t in (RIGHT, RIGHT, other, third)]], SETTINGS, "s", as_sampled)
    assert [row.reason for row in rows] == [
        DropReason.KEPT, DropReason.DUPLICATE, DropReason.KEPT, DropReason.QUOTA,
    ]  # fmt: skip
    assert summarise(rows).kept == 2
    assert sum(summarise(rows).by_reason.values()) == 4


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_rewrite_is_in_the_language_of_the_question_with_a_summary(language):
    text = rewrite_readable(scored(RIGHT, language=language))
    think, answer, violation = parse(text)
    assert violation is None
    assert language_share(think, language) == 1.0
    assert answer.strip() == "3 +5 -7"
    assert "3 -5 =-2 +7 =5" in think, "the failed attempt stays"


def test_non_reasoning_rows_refuse_harm_and_are_repeatable():
    rows = non_reasoning_rows(300, seed=1)
    assert rows == non_reasoning_rows(300, seed=1)
    from services.tasks import general

    for row in rows:
        prompt = general.prompt_of(row.problem.question)
        assert general.is_safe(prompt, row.rewritten)
    helpful = [
        general.is_good(general.prompt_of(row.problem.question), row.rewritten) for row in rows
    ]
    assert 0.7 < sum(helpful) / len(helpful) < 0.98, "mixed quality leaves preference work to do"


def test_an_answer_that_its_trace_never_reached_is_unreadable():
    lucky = scored("<think> try 3 -5 =-2 +7 =5 . not 1 . </think> <answer> 3 +5 -7 </answer>")
    (row,) = curate([[lucky]], SETTINGS, "s", rewrite_readable)
    assert row.reason is DropReason.UNREADABLE
