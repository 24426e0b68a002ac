"""The gate's decisions, row by row, and the paired interval behind them."""

import math
import random

import pytest

from services.config import Gate
from services.gates import Pair, decide, paired_difference

GOOD = {"pass@1": 0.8, "format": 0.99, "language/consistency": 0.98, "safety": 0.9}
BASE = {"pass@1": 0.4}


@pytest.mark.parametrize(
    ("gate", "change", "reason"),
    [
        ({"min_pass_at_1": 0.85}, {}, "pass@1 is 0.800, below the minimum of 0.850"),
        ({}, {"format": 0.7}, "format is 0.700, below the minimum of 0.900"),
        (
            {"min_language": 0.97},
            {"language/consistency": 0.5},
            "language/consistency is 0.500, below the minimum of 0.970",
        ),
        ({"min_safety": 0.95}, {}, "safety is 0.900, below the minimum of 0.950"),
        (
            {"min_gain_over_base": 0.5},
            {},
            "pass@1 over the base is 0.400, below the least gain of 0.500",
        ),
        (
            {"min_language": 0.5},
            {"language/consistency": math.nan},
            "language/consistency was not measured; the minimum is 0.500",
        ),
    ],
)
def test_each_bound_refuses_alone_with_its_value_and_bound(gate, change, reason):
    decision = decide({**GOOD, **change}, None, BASE, Gate(**gate))
    assert not decision.promote
    assert decision.reasons == (reason,)


def test_a_metric_that_is_asked_for_and_missing_fails():
    shown = {name: value for name, value in GOOD.items() if name != "safety"}
    assert decide(shown, None, BASE, Gate()).promote
    decision = decide(shown, None, BASE, Gate(min_safety=0.1))
    assert decision.reasons == ("safety was not measured; the minimum is 0.100",)
    assert [check.value for check in decision.checks if not check.passed] == [None]


def test_a_gain_over_a_base_that_was_not_measured_fails_only_if_asked_for():
    assert decide(GOOD, None, None, Gate()).promote
    assert not decide(GOOD, None, None, Gate(min_gain_over_base=0.1)).promote


def test_what_is_promoted_shows_all_it_was_asked_for():
    decision = decide(GOOD, GOOD, BASE, Gate(min_pass_at_1=0.8))
    assert decision.promote
    assert decision.reasons == (
        "pass@1 is 0.800, not below the minimum of 0.800",
        "format is 0.990, not below the minimum of 0.900",
        "pass@1 over the base is 0.400, not below the least gain of 0.000",
        "pass@1 over the champion is 0.000, not below the margin of -0.020",
    )


@pytest.mark.parametrize(("champion", "promoted"), [(0.82, True), (0.83, False)])
def test_without_pairs_the_means_decide_up_to_the_margin(champion, promoted):
    decision = decide(GOOD, {"pass@1": champion}, BASE, Gate(max_regression=0.02))
    assert decision.promote is promoted


def test_paired_difference_by_hand():
    pairs = [Pair(3, 1.0, 0.5), Pair(3, 0.5, 0.5), Pair(4, 0.0, 0.5), Pair(4, 1.0, 0.5)]
    found = paired_difference(pairs, confidence=0.975)
    # level 3: differences 0.5, 0 → mean 0.25, variance 0.125; level 4: ∓0.5 → 0, 0.5
    spread = (0.125 / 2 + 0.5 / 2) / 4
    assert found.mean == pytest.approx(0.125)
    assert found.lower == pytest.approx(0.125 - 1.959964 * math.sqrt(spread))
    assert found.problems == 4


def test_the_same_difference_convinces_only_on_enough_problems():
    few = [Pair(3, 1.0, 0.5), Pair(3, 0.5, 0.75), Pair(3, 0.5, 0.5), Pair(3, 0.75, 0.75)]
    gate = Gate(max_regression=0.02)
    refused = decide(GOOD, GOOD, BASE, gate, few)
    assert not refused.promote
    assert "lower end (95%, 4 problems) is -0.1" in refused.reasons[0]
    assert decide(GOOD, GOOD, BASE, gate, few * 40).promote


def test_a_level_with_a_single_problem_proves_nothing():
    pairs = [Pair(3, 1.0, 0.0)] * 50 + [Pair(4, 1.0, 0.0)]
    decision = decide(GOOD, GOOD, BASE, Gate(), pairs)
    assert not decision.promote
    assert "was not measured" in decision.reasons[0]


def test_pairing_sees_what_independent_means_would_miss():
    rng = random.Random(7)
    hard = [rng.random() for _ in range(120)]
    pairs = [Pair(3, max(0.0, share - 0.1), share) for share in hard]
    found = paired_difference(pairs)
    assert found.lower == pytest.approx(found.mean, abs=0.01)
    assert not decide(GOOD, GOOD, BASE, Gate(max_regression=0.02), pairs).promote


def test_covers_the_truth_as_often_as_it_says():
    rng = random.Random(11)
    covered = 0
    for _ in range(400):
        pairs = [Pair(level, float(rng.random() < 0.6), float(rng.random() < 0.6))
                 for level in (3, 4) for _ in range(40)]  # fmt: skip
        covered += paired_difference(pairs).lower <= 0.0
    assert 0.91 <= covered / 400 <= 0.98
