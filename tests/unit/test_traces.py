"""Reading chains of thought: attempts, slips, repetitions, reflective words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reflection import count_reflective_words, reflective_word_counts
from services.traces import facts_of, read_attempts
from services.types import Problem, Verdict

PUZZLE = Problem(
    "p", "countdown", "make 1 from 3 5 7", json.dumps({"numbers": [3, 5, 7], "target": 1}), "en", 3
)


def completion(think: str, answer: str = "3 +5 -7") -> str:
    return f"<think> {think} </think> <answer> {answer} </answer>"


def test_a_clean_trace_has_attempts_and_no_slips():
    facts = facts_of(
        PUZZLE,
        completion("try 3 -5 =-2 +7 =5 . not 1 . wait , try 3 +5 =8 -7 =1 . yes , that is 1 ."),
        Verdict.CORRECT,
    )
    assert (facts.attempts, facts.steps, facts.slips, facts.repeated_attempts) == (2, 4, 0, 0)
    assert facts.reflective_words == 1
    assert not facts.gave_up
    assert not facts.false_claim


@pytest.mark.parametrize(
    ("steps", "slips"),
    [
        ("3 +5 =8 -7 =1", 0),
        ("3 +5 =9 -7 =2", 1),  # 3 + 5 is not 9; what follows from 9 is right
        ("3 +5 =8 -6 =2", 1),  # 6 is not the third number
        ("4 +5 =9 -7 =2", 1),  # 4 is not the first
        ("3 +5 =8", 1),  # one step short
        ("3 +5 =8 -7 =1 +2 =3", 1),  # one step long
    ],
)
def test_slips_are_counted_by_step(steps, slips):
    (attempt,) = read_attempts(f"try {steps} .", (3, 5, 7))
    assert attempt.slips == slips


def test_repetition_counts_but_a_second_look_does_not():
    twice = "try 3 +5 =8 -7 =1 . retry , try 3 +5 =8 -7 =1 ."
    checked = "try 3 +5 =8 -7 =1 . yes . verify : 3 +5 =8 -7 =1 . right ."
    assert facts_of(PUZZLE, completion(twice), Verdict.CORRECT).repeated_attempts == 1
    facts = facts_of(PUZZLE, completion(checked), Verdict.CORRECT)
    assert (facts.attempts, facts.repeated_attempts) == (1, 0)


def test_giving_up_is_no_false_claim():
    gave_up = facts_of(PUZZLE, completion("i give up .", "none"), Verdict.WRONG)
    assert gave_up.gave_up
    assert not gave_up.false_claim
    claimed = facts_of(PUZZLE, completion("yes", "3 -5 -7"), Verdict.WRONG)
    assert claimed.false_claim
    assert not claimed.gave_up
    cut = facts_of(PUZZLE, "<think> try 3", Verdict.WRONG, truncated=True)
    assert not cut.gave_up
    assert not cut.false_claim


def test_reflective_words_in_both_languages():
    text = "Wait, but this is wrong. However, waiter and button do not count. 等等 ， 重试"
    assert reflective_word_counts(text) == {
        "wait": 2, "but": 1, "wrong": 1, "however": 1, "retry": 1,
    }  # fmt: skip
    assert count_reflective_words(text) == 6


@given(st.text(max_size=300))
def test_any_text_can_be_read(text):
    facts = facts_of(PUZZLE, text, Verdict.WRONG)
    assert facts.slips >= 0
    assert 0.0 <= facts.language_share <= 1.0
