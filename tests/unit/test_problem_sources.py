"""Where problems come from: puzzles by seed, files by line, clear errors."""

import json

import pytest

from services.config import RL, Evaluation, Problems
from services.errors import ProblemError
from services.tasks.sources import (
    held_out_problems,
    rl_schedule,
    training_problems,
    validation_problems,
)

FILE_LINES = [
    {"question": f"What is {n} + 1?", "answer": f"{n} + 1 = <<{n}+1={n + 1}>>\n#### {n + 1}"}
    for n in range(5)
]


def file_settings(tmp_path, text: str) -> Problems:
    path = tmp_path / "problems.jsonl"
    path.write_text(text, encoding="utf-8")
    return Problems(source="jsonl", train_file=str(path), general=False)


def test_puzzles_come_in_both_languages_at_every_level():
    problems = training_problems(Problems(levels=(3, 4)), seed=1, count=8)
    assert {(p.level, p.language) for p in problems} == {
        (3, "en"), (3, "zh"), (4, "en"), (4, "zh"),
    }  # fmt: skip
    assert len({p.id for p in problems}) == 8
    assert problems == training_problems(Problems(levels=(3, 4)), seed=1, count=8)
    assert problems != training_problems(Problems(levels=(3, 4)), seed=2, count=8)


def test_held_out_problems_are_apart_and_even_over_levels():
    held_out = held_out_problems(Problems(), 7, 5)
    assert [p.level for p in held_out].count(6) == 5
    train = {json.loads(p.gold)["numbers"].__str__() for p in training_problems(Problems(), 7, 500)}
    assert not train & {json.loads(p.gold)["numbers"].__str__() for p in held_out}


def test_a_file_gives_its_answers_and_is_cycled_through(tmp_path):
    settings = file_settings(tmp_path, "\n".join(map(json.dumps, FILE_LINES)))
    problems = training_problems(settings, seed=0, count=12)
    assert len(problems) == 12
    assert {p.gold for p in problems} == {"1", "2", "3", "4", "5"}


ENTRY = {"question": "Legs?", "answer": "4", "metadata": {"animals": {"cat": 1}}}


@pytest.mark.parametrize(
    ("kind", "row", "gold"),
    [
        ("math", {"answer": "so it is\n#### 1,234"}, "1,234"),
        ("math", {"answer": "(1, 2]"}, "(1, 2]"),
        ("math", {"answer": 18}, "18"),
        ("choice", {"answer": "A, C"}, "A, C"),
        (
            "countdown",
            {"answer": {"numbers": [1, 2], "target": 3}},
            '{"numbers": [1, 2], "target": 3}',
        ),
        ("exact", {"answer": "#### Paris"}, "#### Paris"),
        ("reasoning_gym/leg_counting", ENTRY, json.dumps(ENTRY)),
    ],
)
def test_a_reference_is_what_its_verifier_reads(tmp_path, kind, row, gold):
    settings = file_settings(tmp_path, json.dumps({"question": "Legs?", **row}))
    [problem] = training_problems(settings.model_copy(update={"kind": kind}), 0, 1)
    assert problem.gold == gold


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no problem"),
        ("{", "line 1 is not a problem"),
        ('{"question": "?"}', "line 1 is not a problem"),
        ('{"question": "?", "answer": "#### "}', "empty question or answer"),
        ('{"question": "?", "answer": "1"}\n[]', "line 2 is not a problem"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(ProblemError, match=message):
        training_problems(file_settings(tmp_path, text), 0, 1)


def test_a_missing_file_names_the_setting():
    settings = Problems(source="jsonl", train_file="nowhere.jsonl")
    with pytest.raises(ProblemError, match="train_file"):
        training_problems(settings, 0, 1)


def test_general_prompts_come_in_the_last_steps_only():
    rl = RL(steps=5, prompts_per_step=4, general_share=0.5, preference_last_steps=2)
    schedule = rl_schedule(Problems(), rl, seed=0)
    counts = [sum(p.kind == "general" for p in step) for step in schedule]
    assert counts == [0, 0, 0, 2, 2]
    assert all(len(step) == 4 for step in schedule)
    plain = rl_schedule(Problems(general=False), rl, seed=0)
    assert all(p.kind != "general" for step in plain for p in step)


def test_training_is_watched_by_problems_that_the_evaluation_does_not_ask():
    measured = Evaluation(problems_per_level=40)
    watched = validation_problems(Problems(), measured, 30)
    asked = {p.gold for p in held_out_problems(Problems(), measured.seed, 40)}
    assert len(watched) == 30
    assert {p.level for p in watched} == {3, 4, 5, 6}
    assert not {p.gold for p in watched} & asked


def test_an_evaluation_of_everything_leaves_nothing_to_watch_by(tmp_path):
    settings = file_settings(tmp_path, "\n".join(map(json.dumps, FILE_LINES)))
    assert len(validation_problems(settings, Evaluation(problems_per_level=3), 9)) == 2
    with pytest.raises(ProblemError, match="takes all held-out problems"):
        validation_problems(settings, Evaluation(problems_per_level=5), 9)


def test_a_schedule_has_a_list_for_every_part_of_every_rollout():
    shape = {"steps": 10, "prompts_per_step": 2, "general_share": 0.5, "preference_last_steps": 4}
    plain = rl_schedule(Problems(), RL(**shape), seed=1)
    assert [sum(p.kind == "general" for p in part) for part in plain] == [0] * 6 + [1] * 4
    # rollouts of 2 parts, each used twice: steps 0–3, 4–7, 8–11, of which the last 4 are 6–9
    reused = RL(**shape, minibatches_per_rollout=2, epochs_per_rollout=2)
    parts = rl_schedule(Problems(), reused, seed=1)
    assert [sum(p.kind == "general" for p in part) for part in parts] == [0, 0, 0, 0, 1, 1]
