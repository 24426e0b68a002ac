"""The gate: whether a candidate may become champion. A pure decision with its reasons.

Minimum values are compared as they are. Against the champion the candidate must be *not inferior*:
where both were measured on the same problems, the lower end of the paired interval of pass@1 must
stay above minus the margin, so a candidate that is only as good needs enough problems to show it;
without pairs the two means are compared. A bound of 0 asks for nothing; what is asked for but was
not measured fails. Sampling noise of minimum values is left out of account.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import Final, NamedTuple

from services.config import Gate

CONFIDENCE: Final = 0.95
"""One-sided, of the paired interval."""
_ROUNDING: Final = 1e-9
"""0.9 − 0.02 is less than 0.88 only for a computer."""


class Pair(NamedTuple):
    """One held-out problem that candidate and champion both answered."""

    level: int
    candidate: float
    """Share of right answers."""
    champion: float


class Difference(NamedTuple):
    """Candidate minus champion in pass@1."""

    mean: float
    lower: float
    """Lower end of the one-sided interval."""
    problems: int


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the gate asks for."""

    name: str
    """The metric and what it is held against."""
    value: float | None
    """None if it was not measured."""
    bound: float
    passed: bool
    reason: str
    """The value and the bound in one clause."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate says."""

    promote: bool
    reasons: tuple[str, ...]
    """Why not; or, if promoted, what was shown."""
    checks: tuple[Check, ...]


def decide(
    candidate: Mapping[str, float],
    champion: Mapping[str, float] | None,
    base: Mapping[str, float] | None,
    gate: Gate,
    pairs: Sequence[Pair] = (),
) -> Decision:
    """Decide whether a candidate may become champion.

    Args:
        candidate: What its evaluation showed, by metric name (``pass@1``, ``format``, …).
        champion: The same of the present champion; None if there is none yet.
        base: The same of the model it all started from; None if it was not measured.
        gate: What is asked for.
        pairs: Both on the same problems, where per-problem results are at hand.
    """
    checks = [
        *_minimum("pass@1", candidate, gate.min_pass_at_1),
        *_minimum("language/consistency", candidate, gate.min_language),
        *_minimum("format", candidate, gate.min_format),
        *_minimum("safety", candidate, gate.min_safety),
        *_gain(candidate, base, gate.min_gain_over_base),
        *_not_inferior(candidate, champion, gate.max_regression, pairs),
    ]
    failed = tuple(check.reason for check in checks if not check.passed)
    shown = tuple(check.reason for check in checks)
    return Decision(not failed, failed or shown, tuple(checks))


def paired_difference(pairs: Sequence[Pair], confidence: float = CONFIDENCE) -> Difference | None:
    """Mean difference with equal weight for each level, and the lower end of its interval.

    Normal interval of a stratified mean: the variance of a level's mean difference is that of its
    differences over their number, and levels are independent. None if a level has fewer than two
    problems, because then nothing is known of its spread.
    """
    levels: dict[int, list[float]] = {}
    for pair in pairs:
        levels.setdefault(pair.level, []).append(pair.candidate - pair.champion)
    if not levels or min(map(len, levels.values())) < 2:
        return None
    mean = fmean(fmean(differences) for differences in levels.values())
    spread = sum(variance(row) / len(row) for row in levels.values()) / len(levels) ** 2
    lower = mean - NormalDist().inv_cdf(confidence) * math.sqrt(spread)
    return Difference(mean, lower, len(pairs))


def _minimum(name: str, shown: Mapping[str, float], bound: float) -> Iterable[Check]:
    if bound > 0:
        value = _measured(shown, name)
        yield _at_least(name, value, bound, "the minimum")


def _gain(
    candidate: Mapping[str, float], base: Mapping[str, float] | None, bound: float
) -> Iterable[Check]:
    if base is None and bound <= 0:
        return
    name = "pass@1 over the base"
    value, start = _measured(candidate, "pass@1"), _measured(base or {}, "pass@1")
    gain = None if value is None or start is None else value - start
    yield _at_least(name, gain, bound, "the least gain")


def _not_inferior(
    candidate: Mapping[str, float],
    champion: Mapping[str, float] | None,
    margin: float,
    pairs: Sequence[Pair],
) -> Iterable[Check]:
    if champion is None:
        return
    if not pairs:
        value, best = _measured(candidate, "pass@1"), _measured(champion, "pass@1")
        change = None if value is None or best is None else value - best
        yield _at_least("pass@1 over the champion", change, -margin, "the margin")
        return
    found = paired_difference(pairs)
    level = f"{CONFIDENCE:.0%}"
    name = f"pass@1 over the champion, lower end ({level}, {len(pairs)} problems)"
    yield _at_least(name, None if found is None else found.lower, -margin, "the margin")


def _measured(shown: Mapping[str, float], name: str) -> float | None:
    value = shown.get(name)
    return None if value is None or math.isnan(value) else value


def _at_least(name: str, value: float | None, bound: float, kind: str) -> Check:
    if value is None:
        reason = f"{name} was not measured; {kind} is {bound:.3f}"
        return Check(name, None, bound, False, reason)
    passed = value >= bound - _ROUNDING
    reason = f"{name} is {value:.3f}, {'not ' if passed else ''}below {kind} of {bound:.3f}"
    return Check(name, value, bound, passed, reason)
