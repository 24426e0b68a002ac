import random

import pytest

from services.views import onset


def curve(*stretches: tuple[int, float], wobble: float = 0.0) -> list[tuple[int, float]]:
    rng = random.Random(0)
    values = [value for count, value in stretches for _ in range(count)]
    return [(step, value + rng.gauss(0, wobble)) for step, value in enumerate(values, start=1)]


def test_a_jump_is_found_where_it_is_seen():
    found = onset(curve((20, 0.1), (20, 0.5)), rising=True)
    # 40 points: the beginning is 5, its mean 0.1. The bound is a tenth of that or 0.01: 0.11. The
    # mean of the last five passes it as soon as one of them is 0.5, at step 21.
    assert (found.step, found.before, found.last, found.lasted) == (21, 0.1, 0.5, True)
    assert found.bound == pytest.approx(0.11)


def test_only_the_direction_that_is_asked_for_counts():
    points = curve((20, 0.5), (20, 0.1))
    assert onset(points, rising=True).step is None
    assert onset(points, rising=False).step == 21


def test_what_passes_again_sets_in_but_does_not_last():
    found = onset(curve((20, 0.1), (12, 0.5), (20, 0.1)), rising=True)
    assert (found.step, found.lasted) == (21, False)


def test_a_single_spike_is_no_onset():
    assert onset(curve((20, 0.1), (1, 0.12), (30, 0.1)), rising=True).step is None


def test_noise_alone_sets_nothing_in():
    for wobble in (0.01, 0.1, 1.0):
        found = onset(curve((5, 1.0), (20, 1.0), wobble=wobble), rising=True)
        assert found.bound - found.before >= 0.1 * found.before
    level = curve((200, 1.0), wobble=0.02)
    assert onset(level, rising=True).step is None
    assert onset(level, rising=False).step is None


def test_a_wavering_beginning_asks_for_more():
    quiet = onset(curve((10, 1.0), (30, 1.2)), rising=True)
    loud = onset([(s, v + (0.5 if s % 2 else -0.5)) for s, v in curve((10, 1.0), (30, 1.2))],
                 rising=True)  # fmt: skip
    # The bound is 1.1; three of the last five have to be 1.2 before their mean is above it.
    assert quiet.step == 13
    assert loud.step is None


def test_too_short_a_curve_has_none_and_gaps_are_left_out():
    assert onset(curve((14, 1.0)), rising=True) is None
    assert onset([(step, None) for step in range(99)], rising=True) is None
    points = [(step, None if step % 3 == 0 else value) for step, value in curve((30, 0), (30, 1))]
    assert onset(points, rising=True).step == 31
