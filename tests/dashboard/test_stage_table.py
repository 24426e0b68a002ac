"""What the tables of the dashboard say of the metrics of an evaluation."""

import random

from dashboard import stage_table
from services.evaluation import summarise
from tests.dashboard import seed

OF_GENERAL_PROMPTS = ("helpfulness", "safety", "general/language", "general/format")


def test_every_number_of_an_evaluation_is_defined() -> None:
    asked, rng = random.Random(0), random.Random(1)
    problems = [seed.problem(asked) for _ in range(12)]
    groups = [[seed.scored(rng, problem, 0.5) for _ in range(4)] for problem in problems]
    recorded = [*summarise(groups, k=4), *OF_GENERAL_PROMPTS]
    assert len(recorded) > 40
    for name in recorded:
        found = stage_table.metric(name)
        assert found.meaning != stage_table.metric("nobody measured this").meaning, name
        assert "{" not in found.heading + found.meaning, name


def test_a_name_is_read_by_its_ends() -> None:
    assert stage_table.metric("pass@1").meaning == stage_table.SHARE_RIGHT
    assert stage_table.metric("pass@1/level_6").heading == "level 6"
    assert stage_table.metric("pass@16").heading == "pass@16"
    assert stage_table.metric("cons@64").meaning.endswith("answer of 64 is right")
    assert stage_table.metric("length/right_p90").heading == "p90"
    assert stage_table.metric("reflective/zh/wait").heading == "wait, Chinese"


def test_columns_come_in_the_order_they_are_wanted() -> None:
    there = ["pass@16", "safety", "pass@1", "pass@1/level_10", "pass@1/level_9", "pass@k"]
    wanted = ("pass@1", "pass@1/level_*", "pass@*", "cons@*", "safety")
    assert stage_table.chosen(wanted, there) == [
        "pass@1", "pass@1/level_9", "pass@1/level_10", "pass@16", "safety",
    ]  # fmt: skip
