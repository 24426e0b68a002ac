"""The formula, its parts, and trying it on a base model before training."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.bench.rewards import bench, puzzle_rows
from services.config import RL, RewardWeights, Shaping
from services.errors import RewardError
from services.prompts import last_boxed, parse
from services.reward_check import check_references, dry_run
from services.rewards import NO_RULE, score
from services.types import Completion, Judgement, Problem, Verdict

GOLDEN = Path(__file__).parents[1] / "golden"
PUZZLE = json.dumps({"numbers": [9, 1, 3], "target": 11, "ordered": True, "operators": "+-"})
PROBLEM = Problem("p", "countdown", "make 11 from 9 1 3", PUZZLE, "en", 3)
GENERAL = Problem("g", "general", "hello !", "", "en")
WEIGHTS = RewardWeights(accuracy=1.0, format=0.5, language=0.25, preference=2.0)
RIGHT = "<think> try 9 -1 =8 +3 =11 . 对 </think> <answer> 9 -1 +3 </answer>"
WRONG = "<think> i give up . </think> <answer> none </answer>"


@pytest.mark.parametrize(
    "row", json.loads((GOLDEN / "format_cases.json").read_text(encoding="utf-8"))
)
def test_format_names_the_broken_rule(row: dict[str, Any]) -> None:
    assert parse(row["completion"], row["form"]).violation == row["violation"]


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{5}", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("5", None),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2", "1"),
        (r"\boxed{2", None),
        (r"{ \boxed{1}", "1"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{}", ""),
        (r"\boxed{" * 100_000, None),
    ],
)
def test_last_boxed(text: str, inside: str | None) -> None:
    assert last_boxed(text) == inside


def test_total_is_the_weighted_sum_of_the_parts() -> None:
    scored = score(PROBLEM, RIGHT, weights=WEIGHTS)
    assert scored.verdict is Verdict.CORRECT
    assert scored.parts == {"accuracy": 1.0, "format": 1.0, "language": 0.5}
    assert scored.total == 1.0 + 0.5 * 1.0 + 0.25 * 0.5


def test_wrong_answer_keeps_its_other_parts() -> None:
    scored = score(PROBLEM, WRONG, weights=WEIGHTS)
    assert scored.parts == {"accuracy": 0.0, "format": 1.0, "language": 1.0}
    assert scored.total == 0.75


def test_broken_format_costs_format_alone_and_is_named() -> None:
    scored = score(PROBLEM, f"hi {RIGHT}", weights=WEIGHTS)
    assert (scored.parts["accuracy"], scored.parts["format"]) == (1.0, 0.0)
    assert scored.reason == "the expression makes the target; format: text before <think>"


def test_unscorable_row_has_no_accuracy_and_no_total() -> None:
    judgement = Judgement(Verdict.UNSCORABLE, "the verifier took too long")
    scored = score(PROBLEM, RIGHT, weights=WEIGHTS, judgement=judgement)
    assert (scored.verdict, scored.total) == (Verdict.UNSCORABLE, None)
    assert scored.parts == {"format": 1.0, "language": 0.5}
    assert scored.reason == "the verifier took too long"


def test_general_prompt_has_preference_in_place_of_accuracy() -> None:
    scored = score(GENERAL, WRONG, weights=WEIGHTS, preference=0.8)
    assert scored.parts == {"format": 1.0, "language": 1.0, "preference": 0.8}
    assert scored.total == pytest.approx(0.5 + 0.25 + 1.6)
    assert (scored.verdict, scored.reason) == NO_RULE


def test_target_language_may_be_the_recipes() -> None:
    assert score(PROBLEM, WRONG, weights=WEIGHTS, target_language="zh").parts["language"] == 0.0


def test_unknown_language_matters_only_if_it_is_rewarded() -> None:
    klingon = Problem("p", "exact", "", "Qapla'", "tlh")
    text = "<think> nuqneH </think> <answer> Qapla' </answer>"
    assert score(klingon, text, weights=RewardWeights()).total == 2.0
    rewarded = score(klingon, text, weights=WEIGHTS)
    assert rewarded.verdict is Verdict.UNSCORABLE
    assert "tlh" in rewarded.reason


@pytest.mark.parametrize(
    ("tokens", "overlong", "length"),
    [(0, 0.0, 0.0), (80, 0.0, -0.8), (90, -0.5, -0.9), (100, -1.0, -1.0), (200, -1.0, -1.0)],
)
def test_optional_parts_by_length(tokens: int, overlong: float, length: float) -> None:
    shaping = Shaping(overlong=0.5, overlong_tokens=20, length=0.1)
    scored = score(
        PROBLEM, RIGHT, weights=RewardWeights(), shaping=shaping, tokens=tokens, max_tokens=100
    )
    assert (scored.parts["overlong"], scored.parts["length"]) == (overlong, length)
    assert scored.total == pytest.approx(2.0 + 0.5 * overlong + 0.1 * length)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("one two three", 0.0),
        ("one two three four five six", 0.0),
        ("one two three four one two three four", 0.2),
        ("等等等等等等等", 0.75),
        ("", 0.0),
    ],
)
def test_repetition_is_the_share_of_repeated_ngrams(text: str, share: float) -> None:
    completion = f"<think> {text} </think> <answer> none </answer>"
    shaping = Shaping(repetition=2.0)
    scored = score(PROBLEM, completion, weights=RewardWeights(), shaping=shaping)
    assert scored.parts["repetition"] == pytest.approx(-share)
    assert scored.total == pytest.approx(1.0 - 2.0 * share)


def test_optional_parts_are_off_by_default() -> None:
    scored = score(PROBLEM, RIGHT, weights=WEIGHTS, tokens=100, max_tokens=100)
    assert set(scored.parts) == {"accuracy", "format", "language"}


# --- dry run ------------------------------------------------------------------------------------


def samples(*texts: str) -> list[Completion]:
    return [Completion(text, (1, 2, 3), (), truncated=False) for text in texts]


def raise_fault(report) -> None:
    if report.fault:
        raise report.fault


def test_dry_run_of_a_sound_reward() -> None:
    report = dry_run([PROBLEM, PROBLEM], [samples(RIGHT, WRONG), samples(f"x {WRONG}")], RL())
    assert report.fault is None
    assert (report.completions, report.unscorable, report.constant) == (3, 0, ())


def test_dry_run_stops_with_examples_where_a_part_is_constant() -> None:
    report = dry_run([PROBLEM], [samples("9", "8", WRONG)], RL(weights=RewardWeights(format=0.0)))
    [part] = report.constant
    assert (part.name, part.value, part.is_blind) == ("accuracy", 0.0, True)
    with pytest.raises(RewardError, match=r"accuracy is 0 for all 3 samples.*'9'.*'8'.*give up"):
        raise_fault(report)


def test_dry_run_knows_the_optional_parts() -> None:
    """All samples are three tokens long, so a penalty on length teaches nothing."""
    settings = RL(shaping=Shaping(length=1.0), max_new_tokens=6)
    report = dry_run([PROBLEM], [samples(RIGHT, WRONG)], settings)
    assert [(part.name, part.value) for part in report.constant if part.is_blind] == [
        ("length", -0.5)
    ]


def test_dry_run_lets_a_perfect_format_be() -> None:
    report = dry_run([PROBLEM], [samples(RIGHT, WRONG)], RL())
    assert [(part.name, part.is_blind) for part in report.constant] == [("format", False)]
    assert report.fault is None


def test_dry_run_stops_at_a_reference_that_does_not_verify() -> None:
    unreachable = Problem("u", "countdown", "", '{"numbers": [1, 1], "target": 50}', "en")
    report = dry_run([PROBLEM, unreachable], [samples(RIGHT, WRONG)], RL())
    assert [row.problem.id for row in report.faulty] == ["u"]
    with pytest.raises(RewardError, match=r"'\{\"numbers\": \[1, 1\], \"target\": 50\}' of u"):
        raise_fault(report)


def test_dry_run_stops_where_nothing_can_be_scored() -> None:
    general = dry_run([GENERAL], [samples(RIGHT)], RL())
    assert general.fault is None
    klingon = Problem("k", "general", "", "", "tlh")
    report = dry_run([klingon], [samples(RIGHT, WRONG)], RL(weights=WEIGHTS))
    with pytest.raises(RewardError, match=r"none of 2 samples can be scored.*'tlh'"):
        raise_fault(report)


def test_references_are_checked_by_their_own_verifier() -> None:
    good = [PROBLEM, Problem("c", "choice", "", "B", "en"), GENERAL]
    bad = Problem("b", "choice", "", "Paris", "en")
    assert [row.problem.id for row in check_references([*good, bad])] == ["b"]


# --- bench --------------------------------------------------------------------------------------


def test_bench_measures_every_figure() -> None:
    figures = json.loads(bench(rule_rows=20, math_rows=16, memory_rows=50).to_json())
    assert (figures["rule_rows"], figures["number_rows"], figures["latex_rows"]) == (20, 16, 16)
    rates = [name for name in figures if name.endswith(("_rate", "_per_core", "_speedup"))]
    assert len(rates) == 7
    assert all(figures[name] > 0 for name in rates)
    assert figures["rule_words"] >= 60


def test_bench_rows_are_the_same_for_the_same_seed() -> None:
    assert next(puzzle_rows(3)) == next(puzzle_rows(3)) != next(puzzle_rows(4))
