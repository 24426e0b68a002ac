"""A model of a few thousand weights and a job to train it, for tests of the training engine.

Run as a module it is one process of a launched job: POLICY FOLDER SETTINGS_JSON.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from services.clock import WorkClock
from services.config import RL, Engine, Problems
from services.pretraining.pretrain import Shape, new_model
from services.pretraining.tokenizer import build_tokenizer
from services.tasks.sources import rl_schedule, training_problems
from services.training.grpo import LeanGRPOTrainer, train_rl
from services.training.guards import Finding
from services.training.job import RLJob
from services.types import Completion, EvaluationSample, Metrics, Problem, Rollout, Score, Verdict

SMALL = Shape(layers=2, width=16, heads=2, intermediate=32)
RL_SMALL = RL(
    steps=4,
    prompts_per_step=3,
    group_size=4,
    learning_rate=1e-3,
    kl_beta=0.0,
    max_new_tokens=12,
    estimator="dapo",
    save_every=2,
)


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[Metrics] = []
        self.rollouts: list[Rollout] = []
        self.held_out: list[list[EvaluationSample]] = []
        self.started_after: list[int] = []
        self.alarms: list[tuple[int, Finding]] = []

    def resumed(self, step: int) -> None:
        self.started_after.append(step)

    def step(
        self,
        metrics: Metrics,
        rollouts: Sequence[Rollout],
        held_out: Sequence[EvaluationSample] = (),
    ) -> None:
        self.steps.append(metrics)
        self.rollouts += rollouts
        self.held_out.append(list(held_out))

    def alarm(self, step: int, finding: Finding) -> None:
        self.alarms.append((step, finding))


class Crash(Exception):
    """Stands for the end of the process."""


class CrashingRecorder(Recorder):
    """Fails at a step, as if the process had been killed there."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def step(
        self,
        metrics: Metrics,
        rollouts: Sequence[Rollout],
        held_out: Sequence[EvaluationSample] = (),
    ) -> None:
        if metrics.step == self.at:
            raise Crash
        super().step(metrics, rollouts, held_out)


class ScoreByLength:
    """A reward that differs within groups: longer is better, the very short are unscorable."""

    def begin(self, problem: Problem, group: Sequence[Completion]) -> None:
        pass

    def __call__(
        self,
        problems: Sequence[Problem],
        groups: Sequence[Sequence[Completion]],
        *,
        max_tokens: int = 0,
    ) -> list[list[Score]]:
        return [[self.one(completion) for completion in group] for group in groups]

    def one(self, completion: Completion) -> Score:
        length = len(completion.token_ids)
        if length < 3:
            return Score(Verdict.UNSCORABLE, "too short", {}, None)
        total = length + sum(completion.token_ids) % 7
        return Score(Verdict.CORRECT, "", {"format": 1.0}, total)


class ScoreAlike(ScoreByLength):
    """A reward that teaches nothing."""

    def one(self, completion: Completion) -> Score:
        return Score(Verdict.WRONG, "", {"format": 1.0}, 0.0)


def write_policy(folder: Path) -> Path:
    """A random model that ends its sequences soon."""
    tokenizer = build_tokenizer()
    model = new_model(SMALL, tokenizer, seed=2)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 4
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def job(policy: Path, where: Path, settings: RL = RL_SMALL, budget: int = 200) -> RLJob:
    return RLJob(
        policy=policy,
        output=where / "out",
        work=where / "work",
        settings=settings,
        engine=Engine(threads=1, device="cpu", micro_batch_tokens=budget),
        stream="test",
        schedule=rl_schedule(Problems(), settings, seed=5),
        held_out=training_problems(Problems(), 77, settings.eval_problems),
        spares=training_problems(Problems(), 99, 50),
    )


def trainer_of(job: RLJob, recorder: Recorder | None = None) -> LeanGRPOTrainer:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return LeanGRPOTrainer(
        job,
        AutoModelForCausalLM.from_pretrained(job.policy, dtype=torch.float32),
        AutoTokenizer.from_pretrained(job.policy, padding_side="left"),
        ScoreByLength(),
        recorder or Recorder(),
        WorkClock(),
    )


def rows_of_a_step(trainer: LeanGRPOTrainer) -> list[dict[str, object]]:
    """What TRL's data loader hands to a generation."""
    rl = trainer.job.settings
    count = rl.prompts_per_step * rl.minibatches_per_rollout
    rows = [trainer.train_dataset[place] for place in range(count)]
    return [row for row in rows for _ in range(rl.group_size)]


def main() -> None:
    policy, where, settings = sys.argv[1:]
    torch.set_num_threads(1)
    recorder = Recorder()
    launched = job(Path(policy), Path(where), RL.model_validate_json(settings))
    train_rl(launched, ScoreByLength(), recorder, WorkClock())
    if recorder.steps:  # the main process
        told = {
            "values": [dict(metrics.values) for metrics in recorder.steps],
            "tokens": [list(row.completion.token_ids) for row in recorder.rollouts],
            "advantages": [row.advantage for row in recorder.rollouts],
        }
        Path(where, "told.json").write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
