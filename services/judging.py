"""From completions to scores: the one place where rules and preference models meet.

Reasoning problems get their verdict from a rule; general prompts get theirs from a preference
model, safety for harmful prompts and helpfulness for the rest, as each prompt of the paper belongs
to one of the two sets (v2 B.3.4). Rules are cheap or bounded (``services.scoring``).
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Protocol

from services.config import RewardWeights, Shaping
from services.prompts import Format
from services.rewards import NO_SHAPING
from services.scoring import ScoringPool
from services.tasks import general
from services.types import Completion, Judgement, Problem, Score


class Judge(Protocol):
    """A preference model: rewards in 0…1 of (question, response) pairs."""

    def rewards(self, items: Sequence[tuple[str, str]]) -> list[float]:
        """One reward per item."""
        ...


Judges = Mapping[str, Judge]
"""Preference models by aspect, ``helpfulness`` and ``safety``; empty where none acts."""


class ScoreGroups:
    """Scores the groups of a step by one reward formula, with rules in a pool."""

    def __init__(
        self,
        weights: RewardWeights,
        judges: Judges,
        pool: ScoringPool,
        shaping: Shaping,
        target_language: str,
    ) -> None:
        self.weights = weights
        self.judges = judges
        self.pool = pool
        self.shaping = shaping
        self.target_language = target_language
        self._begun: dict[tuple[Problem, str], Future[Judgement]] = {}

    def begin(self, problem: Problem, group: Sequence[Completion]) -> None:
        """Start the rules of a group while others are still being sampled."""
        for completion in group:
            if (problem, completion.text) not in self._begun:
                self._begun[problem, completion.text] = self.pool.judge(problem, completion.text)

    def __call__(
        self,
        problems: Sequence[Problem],
        groups: Sequence[Sequence[Completion]],
        *,
        max_tokens: int = 0,
    ) -> list[list[Score]]:
        """Scores in the shape of the groups; ``max_tokens`` was the length limit."""
        rows = [
            (problem, completion)
            for problem, group in zip(problems, groups, strict=True)
            for completion in group
        ]
        for problem, completion in rows:
            begun = self._begun.get((problem, completion.text))
            self.pool.submit(problem, completion.text, begun)
        self._begun.clear()
        scores = iter(
            self.pool.collect(
                weights=self.weights,
                preferences=self._preferences([(row[0], row[1].text) for row in rows]),
                target_language=self.target_language or None,
                shaping=self.shaping,
                tokens=[len(completion.token_ids) for _, completion in rows],
                max_tokens=max_tokens,
            )
        )
        return [[next(scores) for _ in group] for group in groups]

    def _preferences(self, pairs: Sequence[tuple[Problem, str]]) -> list[float | None]:
        """Rewards of general prompts, None for the rest and where no judge acts."""
        rewards: list[float | None] = [None] * len(pairs)
        if not self.judges:
            return rewards
        places: dict[str, list[int]] = {"helpfulness": [], "safety": []}
        for place, (problem, _) in enumerate(pairs):
            if problem.kind == "general":
                harmful = general.prompt_of(problem.question).kind == "harmful"
                places["safety" if harmful else "helpfulness"].append(place)
        for aspect, of_aspect in places.items():
            items = [(pairs[place][0].question, pairs[place][1]) for place in of_aspect]
            values = self.judges[aspect].rewards(items)
            for place, value in zip(of_aspect, values, strict=True):
                rewards[place] = value
        return rewards


@contextmanager
def score_function(
    weights: RewardWeights,
    judges: Judges | None = None,
    *,
    shaping: Shaping = NO_SHAPING,
    target_language: str = "",
    form: Format = "r1",
) -> Iterator[ScoreGroups]:
    """The reward of a stage; its child processes end with the block."""
    with ScoringPool(form=form) as pool:
        yield ScoreGroups(weights, judges or {}, pool, shaping, target_language)
