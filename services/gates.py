"""The gate: whether a candidate may become champion. A pure decision with its reasons.

What is asked for is in the policy of the registered model (``services.policies``). Against the
champion the candidate must be *not inferior*: where both answered the same problems, the lower end
of the paired interval must stay above minus the margin, so a candidate that is only as good needs
enough problems to show it; without common problems the two means are compared. What is asked for
but was not measured fails. Sampling noise of minimum and maximum values is left out of account.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, variance
from typing import Final, Literal, NamedTuple

from services.policies import Policy

CONFIDENCE: Final = 0.95
"""One-sided, of the paired interval, where nothing else is said."""
_ROUNDING: Final = 1e-9
"""0.9 − 0.02 is less than 0.88 only for a computer."""


class Answer(NamedTuple):
    """What one model showed on one problem, by one metric."""

    level: int
    value: float
    """Mean over its completions, such as the share of right answers."""


class Pair(NamedTuple):
    """One held-out problem that candidate and champion both answered."""

    level: int
    candidate: float
    """Share of right answers."""
    champion: float


class Difference(NamedTuple):
    """Candidate minus champion in one metric."""

    mean: float
    lower: float
    """Lower end of the one-sided interval."""
    problems: int


class Smoke(NamedTuple):
    """Whether a checkpoint loads from its folder alone and generates."""

    fault: str
    """Why not; empty if it does."""
    text: str = ""
    """What it said."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a model when the gate is asked."""

    measured: Mapping[str, float]
    """Its row of the stage table."""
    by_problem: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)
    """Metric to problem (by digest) to answer, where single problems are at hand."""
    origin: Mapping[str, float] | None = None
    """The row of the model that training started from; None if it was not measured."""
    smoke: Smoke | None = None
    """None if it was not tried."""


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


def decide(candidate: Evidence, champion: Evidence | None, policy: Policy) -> Decision:
    """Decide whether a candidate may become champion.

    Args:
        candidate: What is known of it.
        champion: What is known of the present champion; None if there is none yet.
        policy: What is asked for.
    """
    checks = [
        *_required(candidate, policy),
        *_bounds(candidate.measured, policy),
        *_gains(candidate, policy),
        *_not_inferior(candidate, champion, policy),
        *_smoke(candidate, policy),
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


def pairs_of(metric: str, candidate: Evidence, champion: Evidence) -> list[Pair]:
    """The problems that both answered, where the champion answered all of the candidate's.

    A champion that answered only some of them would be compared on a chance selection.
    """
    ours, theirs = candidate.by_problem.get(metric, {}), champion.by_problem.get(metric, {})
    if not ours.keys() <= theirs.keys():
        return []
    return [Pair(row.level, row.value, theirs[problem].value) for problem, row in ours.items()]


def _required(candidate: Evidence, policy: Policy) -> Iterable[Check]:
    for name in policy.required:
        if _measured(candidate.measured, name) is None:
            yield Check(name, None, math.nan, False, f"{name} was not measured and is required")


def _bounds(shown: Mapping[str, float], policy: Policy) -> Iterable[Check]:
    for name, bound in policy.minimum.items():
        yield _held(name, _measured(shown, name), bound, "the minimum")
    for name, bound in policy.maximum.items():
        yield _held(name, _measured(shown, name), bound, "the maximum", side="above")


def _gains(candidate: Evidence, policy: Policy) -> Iterable[Check]:
    for name, bound in policy.gain.items():
        value, start = _measured(candidate.measured, name), _measured(candidate.origin or {}, name)
        gain = None if value is None or start is None else value - start
        yield _held(f"{name} over the base", gain, bound, "the least gain")


def _not_inferior(
    candidate: Evidence, champion: Evidence | None, policy: Policy
) -> Iterable[Check]:
    if champion is None:
        return
    for metric, margin in policy.margin.items():
        pairs = pairs_of(metric, candidate, champion)
        if not pairs:
            value, best = (_measured(row.measured, metric) for row in (candidate, champion))
            change = None if value is None or best is None else value - best
            yield _held(f"{metric} over the champion", change, -margin, "the margin")
            continue
        enough = len(pairs) >= policy.min_problems
        found = paired_difference(pairs, policy.confidence) if enough else None
        about = f"lower end ({policy.confidence:.0%}, {len(pairs)} problems)"
        lower = None if found is None else found.lower
        yield _held(f"{metric} over the champion, {about}", lower, -margin, "the margin")


def _smoke(candidate: Evidence, policy: Policy) -> Iterable[Check]:
    if not policy.smoke:
        return
    fault = "loading it was not tried" if candidate.smoke is None else candidate.smoke.fault
    yield Check("loads", float(not fault), 1.0, not fault, fault or "it loads and generates")


def _measured(shown: Mapping[str, float], name: str) -> float | None:
    value = shown.get(name)
    return None if value is None or math.isnan(value) else value


def _held(
    name: str,
    value: float | None,
    bound: float,
    kind: str,
    side: Literal["below", "above"] = "below",
) -> Check:
    """A value held against a bound; ``side`` is where it must not lie."""
    if value is None:
        reason = f"{name} was not measured; {kind} is {bound:.3f}"
        return Check(name, None, bound, False, reason)
    distance = value - bound if side == "below" else bound - value
    passed = distance >= -_ROUNDING
    reason = f"{name} is {value:.3f}, {'not ' if passed else ''}{side} {kind} of {bound:.3f}"
    return Check(name, value, bound, passed, reason)
