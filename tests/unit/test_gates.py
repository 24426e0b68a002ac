"""The gate's decisions, row by row, and the paired interval behind them."""

import math
import random

import pytest

from services.gates import Answer, Evidence, Pair, Smoke, decide, paired_difference, pairs_of
from services.policies import Policy

GOOD = {"pass@1": 0.8, "format": 0.99, "language/consistency": 0.98, "safety": 0.9}
BASE = {"pass@1": 0.4}
WORKS = Smoke("", "try 3 + 5")


def evidence(measured=GOOD, origin=BASE, smoke=WORKS, **by_problem):
    return Evidence(measured, by_problem, origin, smoke)


def answers(values, level=3):
    return {f"p{n}": Answer(level, value) for n, value in enumerate(values)}


def paired(pairs):
    """Candidate and champion who differ on these problems in pass@1."""
    names = [f"p{n}" for n in range(len(pairs))]
    sides = [
        {"pass@1": {n: Answer(p.level, p[side]) for n, p in zip(names, pairs, strict=True)}}
        for side in (1, 2)
    ]
    return [Evidence(GOOD, side, BASE, WORKS) for side in sides]


@pytest.mark.parametrize(
    ("policy", "change", "reason"),
    [
        ({"minimum": {"pass@1": 0.85}}, {}, "pass@1 is 0.800, below the minimum of 0.850"),
        (
            {"minimum": {"language/consistency": 0.97}},
            {"language/consistency": 0.5},
            "language/consistency is 0.500, below the minimum of 0.970",
        ),
        ({"minimum": {"safety": 0.95}}, {}, "safety is 0.900, below the minimum of 0.950"),
        (
            {"maximum": {"length/mean": 200.0}},
            {"length/mean": 240.0},
            "length/mean is 240.000, above the maximum of 200.000",
        ),
        (
            {"gain": {"pass@1": 0.5}},
            {},
            "pass@1 over the base is 0.400, below the least gain of 0.500",
        ),
        (
            {"minimum": {"safety": 0.5}},
            {"safety": math.nan},
            "safety was not measured; the minimum is 0.500",
        ),
        ({"required": ("gsm8k/pass@1",)}, {}, "gsm8k/pass@1 was not measured and is required"),
    ],
)
def test_each_bound_refuses_alone_with_its_value_and_bound(policy, change, reason):
    decision = decide(evidence({**GOOD, **change}), None, Policy(**policy))
    assert not decision.promote
    assert decision.reasons == (reason,)


def test_a_metric_that_is_asked_for_and_missing_fails():
    shown = {name: value for name, value in GOOD.items() if name != "safety"}
    assert decide(evidence(shown), None, Policy()).promote
    decision = decide(evidence(shown), None, Policy(minimum={"safety": 0.1}))
    assert decision.reasons == ("safety was not measured; the minimum is 0.100",)
    assert [check.value for check in decision.checks if not check.passed] == [None]


def test_a_gain_over_a_base_that_was_not_measured_fails_only_if_asked_for():
    assert decide(evidence(origin=None), None, Policy()).promote
    assert not decide(evidence(origin=None), None, Policy(gain={"pass@1": 0.1})).promote


def test_a_checkpoint_that_does_not_load_is_refused_with_its_fault():
    broken = evidence(smoke=Smoke("a.safetensors lacks weights"))
    assert decide(broken, None, Policy()).reasons == ("a.safetensors lacks weights",)
    untried = decide(evidence(smoke=None), None, Policy())
    assert untried.reasons == ("loading it was not tried",)
    assert decide(evidence(smoke=None), None, Policy(smoke=False)).promote


def test_what_is_promoted_shows_all_it_was_asked_for():
    policy = Policy(minimum={"pass@1": 0.8}, gain={"pass@1": 0.0}, margin={"pass@1": 0.02})
    decision = decide(evidence(), evidence(), policy)
    assert decision.promote
    assert decision.reasons == (
        "pass@1 is 0.800, not below the minimum of 0.800",
        "pass@1 over the base is 0.400, not below the least gain of 0.000",
        "pass@1 over the champion is 0.000, not below the margin of -0.020",
        "it loads and generates",
    )


@pytest.mark.parametrize(("champion", "promoted"), [(0.82, True), (0.83, False)])
def test_without_pairs_the_means_decide_up_to_the_margin(champion, promoted):
    best = evidence({"pass@1": champion})
    decision = decide(evidence(), best, Policy(margin={"pass@1": 0.02}))
    assert decision.promote is promoted


def test_every_margin_is_held_against_pairs_of_its_own_metric():
    same, worse = answers([0.9, 0.8, 1.0] * 20), answers([0.6, 0.5, 0.7] * 20)
    candidate = evidence(**{"pass@1": same, "language/consistency": worse})
    champion = evidence(**{"pass@1": same, "language/consistency": same})
    policy = Policy(margin={"pass@1": 0.05, "language/consistency": 0.05})
    decision = decide(candidate, champion, policy)
    assert decision.reasons == (
        "language/consistency over the champion, lower end (95%, 60 problems) is -0.300, "
        "below the margin of -0.050",
    )


def test_a_champion_that_answered_only_some_of_the_problems_gives_no_pairs():
    candidate = evidence(**{"pass@1": answers([1.0] * 8)})
    champion = evidence(**{"pass@1": answers([0.0] * 7)})
    assert pairs_of("pass@1", candidate, champion) == []
    assert len(pairs_of("pass@1", champion, candidate)) == 7


def test_too_few_common_problems_prove_nothing():
    candidate, champion = paired([Pair(3, 1.0, 0.0)] * 9)
    assert decide(candidate, champion, Policy(min_problems=9)).promote
    decision = decide(candidate, champion, Policy(min_problems=10))
    assert "was not measured" in decision.reasons[0]


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
    policy = Policy(margin={"pass@1": 0.02})
    refused = decide(*paired(few), policy)
    assert not refused.promote
    assert "lower end (95%, 4 problems) is -0.1" in refused.reasons[0]
    assert decide(*paired(few * 40), policy).promote


def test_a_level_with_a_single_problem_proves_nothing():
    pairs = [Pair(3, 1.0, 0.0)] * 50 + [Pair(4, 1.0, 0.0)]
    decision = decide(*paired(pairs), Policy())
    assert not decision.promote
    assert "was not measured" in decision.reasons[0]


def test_pairing_sees_what_independent_means_would_miss():
    rng = random.Random(7)
    hard = [rng.random() for _ in range(120)]
    pairs = [Pair(3, max(0.0, share - 0.1), share) for share in hard]
    found = paired_difference(pairs)
    assert found.lower == pytest.approx(found.mean, abs=0.01)
    assert not decide(*paired(pairs), Policy(margin={"pass@1": 0.02})).promote


def test_covers_the_truth_as_often_as_it_says():
    rng = random.Random(11)
    covered = 0
    for _ in range(400):
        pairs = [Pair(level, float(rng.random() < 0.6), float(rng.random() < 0.6))
                 for level in (3, 4) for _ in range(40)]  # fmt: skip
        covered += paired_difference(pairs).lower <= 0.0
    assert 0.91 <= covered / 400 <= 0.98
