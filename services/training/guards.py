"""Guards: what has gone wrong in a reinforcement-learning run, from its metrics alone.

Step metrics are judged as means over a window, relative to the first window where there is no
absolute scale. Two rules compare more than one number: dead groups are told apart by whether all
or none of their members are right, and reward hacking is a training reward that rises while
held-out accuracy falls (DeepSeek-R1 v2, figure 6). Deciding is here; acting is the trainer's.
Pure: no torch, so every rule can be provoked with made-up numbers.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, NamedTuple

from services.config_guards import GuardName, GuardPolicy, Guards

WATCHED: Final[dict[GuardName, str]] = {
    "entropy": "entropy/sampled",
    "kl": "kl",
    "length": "length/mean",
    "truncation": "truncated",
    "dead_right": "groups/dead_right",
    "dead_wrong": "groups/dead_wrong",
    "mismatch": "mismatch/kl",
}
"""The metric that a guard judges."""
HELD_OUT: Final = "held_out/accuracy"
REWARD: Final = "reward/total"
_STRENGTH: Final[dict[GuardPolicy, int]] = {"off": 0, "warn": 1, "pause": 2, "rollback": 3}


@dataclass(frozen=True, slots=True)
class Finding:
    """A guard has tripped."""

    guard: GuardName
    policy: GuardPolicy
    what: str
    """One sentence with the numbers."""
    value: float
    bound: float


class _Complaint(NamedTuple):
    """What is amiss: a sentence, the value, and the bound it has passed."""

    what: str
    value: float
    bound: float


@dataclass(frozen=True, slots=True)
class _Measurement:
    """Held-out accuracy, and the mean training reward of the steps that led to it."""

    accuracy: float
    reward: float


class GuardWatch:
    """Watches one run. Its state goes into checkpoints, so a resumed run is watched alike."""

    def __init__(self, settings: Guards) -> None:
        self.settings = settings
        self._first: dict[str, list[float]] = {}
        self._last: dict[str, deque[float]] = {}
        self._tripped: set[str] = set()
        self._rewards: list[float] = []
        self._measured: list[_Measurement] = []

    @property
    def quiet(self) -> bool:
        """Whether nothing is amiss at the moment."""
        return not self._tripped

    def observe(self, values: Mapping[str, float]) -> list[Finding]:
        """Take in the metrics of one step, and say which guards have tripped at it.

        A guard that stays tripped is not found again before it has cleared.
        """
        self._take(values)
        found = []
        complaints = dict(self._complaints(values))
        for guard, complaint in complaints.items():
            policy = self.settings.policies.get(guard, self.settings.policy)
            if guard not in self._tripped and policy != "off":
                found.append(Finding(guard, policy, *complaint))
        self._tripped = set(complaints)
        return found

    def state(self) -> dict[str, Any]:
        """Everything remembered, as JSON-able data."""
        return {
            "first": self._first,
            "last": {name: list(values) for name, values in self._last.items()},
            "tripped": sorted(self._tripped),
            "rewards": self._rewards,
            "measured": [[m.accuracy, m.reward] for m in self._measured],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        window = self.settings.window
        self._first = {name: list(values) for name, values in state["first"].items()}
        self._last = {name: deque(values, window) for name, values in state["last"].items()}
        self._tripped = set(state["tripped"])
        self._rewards = list(state["rewards"])
        self._measured = [_Measurement(*pair) for pair in state["measured"]]

    def _take(self, values: Mapping[str, float]) -> None:
        window = self.settings.window
        for name in WATCHED.values():
            value = values.get(name)
            if value is None or not math.isfinite(value):
                continue
            first = self._first.setdefault(name, [])
            if len(first) < window:
                first.append(value)
            else:
                self._last.setdefault(name, deque(maxlen=window)).append(value)
        if math.isfinite(values.get(REWARD, math.nan)):
            self._rewards.append(values[REWARD])
        if HELD_OUT in values and self._rewards:
            self._measured.append(_Measurement(values[HELD_OUT], fmean(self._rewards)))
            self._rewards = []

    def _complaints(self, values: Mapping[str, float]) -> Iterator[tuple[GuardName, _Complaint]]:
        """All that is amiss now."""
        broken = sorted(name for name, value in values.items() if not math.isfinite(value))
        if broken:
            what = f"{', '.join(broken)} is not finite"
            yield "non_finite", _Complaint(what, values[broken[0]], 0.0)
        for guard, name in WATCHED.items():
            last = self._last.get(name, ())
            if len(last) == self.settings.window:
                complaint = _RULES[guard](fmean(last), fmean(self._first[name]), self.settings)
                if complaint:
                    yield guard, complaint
        hacked = self._hacking()
        if hacked:
            yield "held_out", hacked

    def _hacking(self) -> _Complaint | None:
        """Two measurements in a row below the best before them, at a higher training reward."""
        if len(self._measured) < 3:
            return None
        *before, last, now = self._measured
        best = max(before, key=lambda m: m.accuracy)
        bound = best.accuracy - self.settings.held_out_drop
        for seen in (last, now):
            if seen.accuracy >= bound or seen.reward <= best.reward:
                return None
        what = (
            f"the training reward rose from {best.reward:.3g} to {now.reward:.3g} while held-out "
            f"accuracy fell from {best.accuracy:.3g} to {now.accuracy:.3g}"
        )
        return _Complaint(what, now.accuracy, bound)


def strongest(findings: list[Finding]) -> Finding | None:
    """The finding with the strongest policy; the first of equals."""
    return max(findings, key=lambda f: _STRENGTH[f.policy], default=None)


def _entropy(now: float, first: float, settings: Guards) -> _Complaint | None:
    low, high = settings.entropy_low * first, settings.entropy_high * first
    if now < low:
        what = f"entropy collapsed from {first:.3g} to {now:.3g} nats per token"
        return _Complaint(what, now, low)
    if now > high:
        what = f"entropy exploded from {first:.3g} to {now:.3g} nats per token"
        return _Complaint(what, now, high)
    return None


def _kl(now: float, _first: float, settings: Guards) -> _Complaint | None:
    return _above(now, settings.kl, f"KL to the reference is {now:.3g} nats per token")


def _length(now: float, first: float, settings: Guards) -> _Complaint | None:
    bound = settings.length_low * first
    if now >= bound:
        return None
    return _Complaint(f"mean length collapsed from {first:.0f} to {now:.0f} tokens", now, bound)


def _truncation(now: float, first: float, settings: Guards) -> _Complaint | None:
    what = f"{now:.0%} of completions are truncated, {first:.0%} at first"
    return _above(now, max(settings.truncated, 2 * first), what)


def _dead_right(now: float, _first: float, settings: Guards) -> _Complaint | None:
    what = f"{now:.0%} of groups teach nothing because all answers are right"
    return _above(now, settings.dead, what)


def _dead_wrong(now: float, _first: float, settings: Guards) -> _Complaint | None:
    what = f"{now:.0%} of groups teach nothing because no answer is right"
    return _above(now, settings.dead, what)


def _mismatch(now: float, _first: float, settings: Guards) -> _Complaint | None:
    return _above(now, settings.mismatch, f"sampler and trainer differ by {now:.3g} nats per token")


def _above(now: float, bound: float, what: str) -> _Complaint | None:
    return _Complaint(f"{what}, above {bound:.3g}", now, bound) if now > bound else None


_RULES: Final[dict[GuardName, Callable[[float, float, Guards], _Complaint | None]]] = {
    "entropy": _entropy,
    "kl": _kl,
    "length": _length,
    "truncation": _truncation,
    "dead_right": _dead_right,
    "dead_wrong": _dead_wrong,
    "mismatch": _mismatch,
}
"""Mean of the last window, mean of the first, settings: a complaint, or None if all is well."""
