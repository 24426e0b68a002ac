"""When a retraining is due and from where: every occasion, alone and together, and what is none."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.retraining.decision import (
    Champion,
    RetrainPolicy,
    Situation,
    Unfinished,
    decide_retraining,
)

NOW = datetime(2026, 11, 25, 3, tzinfo=UTC)
QUIET = Situation(
    now=NOW,
    champion=Champion(4, "tiny-s0-12345678", NOW - timedelta(days=3)),
    new_problems=63,
    alarms=(),
    base="aaaa",
    known_base="aaaa",
    student="bbbb",
    known_student="bbbb",
    continues=frozenset({"dev2", "r1", "distill"}),
)
POLICY = RetrainPolicy()
CRASHED = Unfinished(7, "tiny-retrain-7-s7-00000000", "r1", 1)


def test_nothing_is_due_and_every_reason_is_given():
    due = decide_retraining(QUIET, POLICY)
    assert due.start is None
    assert due.reasons == (
        "the base is the same",
        "the champion is 3.0 of 30 days old",
        "the champion raised no alarm",
        "63 of 64 new problems",
        "the student is the same",
    )


@pytest.mark.parametrize(
    ("change", "start", "said"),
    [
        ({"champion": None}, "zero", "no champion"),
        ({"base": "cccc"}, "zero", "base is another one"),
        ({"now": NOW + timedelta(days=28)}, "zero", "31 days old"),
        ({"alarms": ("accuracy fell",)}, "dev2", "regressed: accuracy fell"),
        ({"new_problems": 64}, "r1", "64 new problems"),
        ({"student": "dddd"}, "distill", "student is another one"),
    ],
)
def test_each_occasion_has_its_start(change, start, said):
    due = decide_retraining(replace(QUIET, **change), POLICY)
    assert due.start == start
    assert said in due.reasons[0]


def test_several_occasions_are_one_retraining_from_the_earliest_stage():
    several = replace(QUIET, new_problems=100, alarms=("slower",), student="dddd")
    due = decide_retraining(several, POLICY)
    assert due.start == "dev2"
    assert "regressed" in due.reasons[0]
    assert len(due.reasons) == 3


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        ({"min_new_problems": 0}, {"new_problems": 10_000}),
        ({"on_regression": ""}, {"alarms": ("worse",)}),
        ({"on_new_base": False}, {"base": "cccc"}),
        ({"on_new_student": False}, {"student": "dddd"}),
        ({"max_age_days": 0}, {"now": NOW + timedelta(days=999)}),
    ],
)
def test_what_the_policy_leaves_out_is_no_occasion(policy, change):
    due = decide_retraining(replace(QUIET, **change), RetrainPolicy(**policy))
    assert due.start is None
    assert len(due.reasons) == 4, "and nothing is said of it"


def test_a_start_that_the_champion_does_not_allow_becomes_the_whole_recipe():
    lost = replace(QUIET, new_problems=64, continues=frozenset({"distill"}))
    due = decide_retraining(lost, POLICY)
    assert due.start == "zero"
    assert "lacks what r1 goes on from" in due.reasons[1]


def test_what_crashed_goes_on_before_anything_else():
    crashed = replace(QUIET, unfinished=CRASHED, base="cccc", waiting="version 9")
    due = decide_retraining(crashed, POLICY)
    assert (due.resumes, due.start) == (CRASHED, "r1")
    assert decide_retraining(crashed, POLICY, force="zero").resumes == CRASHED


def test_what_crashed_too_often_is_given_up():
    hopeless = replace(QUIET, unfinished=CRASHED._replace(attempts=3), base="cccc")
    due = decide_retraining(hopeless, POLICY)
    assert (due.start, due.resumes, due.gives_up) == (None, None, CRASHED._replace(attempts=3))
    forced = decide_retraining(hopeless, POLICY, force="dev2")
    assert (forced.start, forced.resumes) == ("dev2", None)
    assert forced.gives_up is not None


def test_a_candidate_that_waits_keeps_others_back_unless_forced():
    waits = replace(QUIET, waiting="version 5", new_problems=1000)
    due = decide_retraining(waits, POLICY)
    assert (due.start, due.reasons) == (None, ("version 5 waits for approval",))
    assert decide_retraining(waits, POLICY, force="r1").start == "r1"


def test_models_that_nothing_is_known_of_are_no_other_ones():
    first = replace(QUIET, known_base="", known_student="", base="cccc", student="dddd")
    assert decide_retraining(first, POLICY).start is None
