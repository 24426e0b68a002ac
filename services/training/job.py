"""What a reinforcement-learning stage is given, and whom it tells: descriptions, no machinery."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from services.config import RL, Engine
from services.prompts import Format, Prompting
from services.training.guards import Finding
from services.types import Completion, EvaluationSample, Metrics, Problem, Rollout, Score


class ScoreFunction(Protocol):
    """The reward of a stage."""

    def begin(self, problem: Problem, group: Sequence[Completion]) -> None:
        """A group is sampled; what can be scored of it may start while others decode."""

    def __call__(
        self,
        problems: Sequence[Problem],
        groups: Sequence[Sequence[Completion]],
        *,
        max_tokens: int = 0,
    ) -> list[list[Score]]:
        """Scores of a step in the shape of its groups; ``max_tokens`` was the length limit."""
        ...


class StepRecorder(Protocol):
    """Who is told about every step; with several processes, by the main one."""

    def resumed(self, step: int) -> None:
        """Training goes on after ``step``; anything later is forgotten and done again."""

    def step(
        self,
        metrics: Metrics,
        rollouts: Sequence[Rollout],
        held_out: Sequence[EvaluationSample] = (),
    ) -> None:
        """One step is done; ``held_out`` has the answers where held-out problems were asked."""

    def alarm(self, step: int, finding: Finding) -> None:
        """A guard has tripped at a step."""


@dataclass(frozen=True, slots=True)
class RLJob:
    """All that one reinforcement-learning stage needs, as cheap descriptions."""

    policy: Path
    """Folder of the checkpoint to start from."""
    output: Path
    """Folder the trained policy is written to."""
    work: Path
    """Folder of resumable checkpoints; removed by the caller when the stage is done."""
    settings: RL
    engine: Engine
    stream: str
    """Names the random streams of this stage, for instance ``seed-0/zero``."""
    schedule: Sequence[Sequence[Problem]]
    """Problems as ``services.tasks.sources.rl_schedule`` lays them out."""
    held_out: Sequence[Problem] = ()
    """Problems to watch training by; needed where ``eval_every`` is set."""
    spares: Sequence[Problem] = ()
    """Questions that take the place of groups outside the band; needed where ``choice`` is on."""
    form: Format = "r1"
    """The format that the policy is asked for."""
    chat: bool = False
    """Whether it is asked through its own chat template."""

    @property
    def prompting(self) -> Prompting:
        """How the policy is asked."""
        return prompting_for(self.policy, self.form, chat=self.chat)


@lru_cache(maxsize=8)
def prompting_for(policy: Path, form: Format, *, chat: bool) -> Prompting:
    """How the policy in a folder is asked; through its own chat template if ``chat``."""
    if not chat:
        return Prompting(form)
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(policy)
    return Prompting(form, tokenizer)
