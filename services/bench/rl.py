"""A whole GRPO step against stock TRL: the same model, prompts, rewards and hyperparameters.

Each side runs in a process of its own, so that peak memory is its own, and both are TRL's trainer
underneath: stock samples with ``generate``, pads to the longest and trains on every row; lean is
``services.training.grpo``. The first step warms up and does not count. Both sides start from the
same weights and learn, so lengths stay alike but not equal; they are printed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from services.bench.machine import median, peak_flops, peak_mib
from services.clock import WorkClock
from services.config import Recipe
from services.judging import score_function
from services.prompts import r1_prompt
from services.tasks.sources import rl_schedule
from services.training.guards import Finding
from services.training.throughput import training_flops
from services.types import EvaluationSample, Metrics, Problem, Rollout

SIDES = ("stock", "lean")


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the two showed."""

    steps: int
    completions: int
    """Of each step."""
    step_seconds: float
    """Median."""
    completions_per_second: float
    mean_length: float
    peak_mib: float
    training_share_of_peak: float | None = None
    """FLOP/s of forward and backward over real tokens as a share of ``matmul_gflops``."""
    trained_rows: float | None = None
    """Mean share of rows that had an advantage and were trained on."""


@dataclass(frozen=True, slots=True)
class RLBench:
    """Both sides and their ratios."""

    model: str
    recipe: str
    threads: int
    load: float
    matmul_gflops: float
    """Measured peak of this machine, float32."""
    stock: Side
    lean: Side
    speed_ratio: float
    """Completions per second, lean over stock."""
    memory_ratio: float
    """Peak memory, lean over stock."""


def bench(folder: Path, recipe: Recipe, *, steps: int = 6, rounds: int = 2) -> RLBench:
    """Run both sides in turn, ``rounds`` times each, and compare the better round of each."""
    load = os.getloadavg()[0]
    best: dict[str, Side] = {}
    for _ in range(rounds):
        for side in SIDES:
            seen = _run(side, folder, recipe, steps)
            if side not in best or seen.step_seconds < best[side].step_seconds:
                best[side] = seen
    stock, lean = best["stock"], best["lean"]
    return RLBench(
        model=folder.name,
        recipe=recipe.name,
        threads=torch.get_num_threads(),
        load=load,
        matmul_gflops=peak_flops() / 1e9,
        stock=stock,
        lean=lean,
        speed_ratio=lean.completions_per_second / stock.completions_per_second,
        memory_ratio=lean.peak_mib / stock.peak_mib,
    )


def _run(side: str, folder: Path, recipe: Recipe, steps: int) -> Side:
    job = {"side": side, "folder": str(folder), "recipe": recipe.model_dump_json(), "steps": steps}
    done = subprocess.run(
        [sys.executable, "-m", "services.bench.rl"],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return Side(**json.loads(done.stdout.splitlines()[-1]))


class _Seen:
    """Takes the place of a stage's records."""

    def __init__(self) -> None:
        self.lengths: list[list[int]] = []
        self.trained: list[list[int]] = []

    def resumed(self, step: int) -> None:
        """Nothing to forget."""

    def step(
        self,
        metrics: Metrics,
        rollouts: Sequence[Rollout],
        held_out: Sequence[EvaluationSample] = (),
    ) -> None:
        """Keep lengths: of all rows, and of those that were trained on."""
        rows = [(len(row.completion.token_ids), row.advantage) for row in rollouts]
        self.lengths.append([length for length, _ in rows])
        self.trained.append([length for length, advantage in rows if advantage])

    def alarm(self, step: int, finding: Finding) -> None:
        """Speed is measured here, not training."""


class _StepTimes:
    """Seconds of every step, without what lies between steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def attach(self, trainer: Any) -> None:
        """Time a trainer's steps."""
        from transformers import TrainerCallback

        times = self

        class Timer(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                self.started = time.perf_counter()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                times.seconds.append(time.perf_counter() - self.started)

        trainer.add_callback(Timer())


def measure(side: str, folder: Path, recipe: Recipe, steps: int) -> Side:
    """Train ``steps`` steps after one to warm up, in this process."""
    from services.training.machine import prepare_machine

    rl = recipe.zero.model_copy(update={"steps": steps + 1, "save_every": 10**9})
    recipe = recipe.model_copy(update={"zero": rl})
    schedule = rl_schedule(recipe.problems, rl, seed=7)
    times = _StepTimes()
    with tempfile.TemporaryDirectory() as work:
        if side == "lean":
            prepare_machine(recipe.engine)
            share, rows, lengths = _train_lean(folder, recipe, schedule, Path(work), times)
        else:
            torch.set_num_threads(os.cpu_count() or 1)
            share, rows = None, None
            lengths = _train_stock(folder, recipe, schedule, Path(work), times)
    seconds = median(times.seconds[1:])
    count = rl.prompts_per_step * rl.group_size
    return Side(
        steps=steps,
        completions=count,
        step_seconds=seconds,
        completions_per_second=count / seconds,
        mean_length=sum(lengths) / len(lengths),
        peak_mib=peak_mib(),
        training_share_of_peak=share,
        trained_rows=rows,
    )


def _train_lean(
    folder: Path, recipe: Recipe, schedule: list[list[Problem]], work: Path, times: _StepTimes
) -> tuple[float, float, list[int]]:
    from transformers import AutoTokenizer

    from services.training.grpo import LeanGRPOTrainer
    from services.training.job import RLJob
    from services.training.machine import device_of, silence
    from services.training.policies import load_policy

    job = RLJob(folder, work, work, recipe.zero, recipe.engine, "bench", schedule)
    model = load_policy(folder, device_of(recipe.engine))
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    seen, clock = _Seen(), WorkClock()
    with score_function(recipe.zero.weights) as score:
        trainer = LeanGRPOTrainer(job, model, tokenizer, score, seen, clock)
        silence(trainer)
        times.attach(trainer)
        trainer.train()
    prompt = len(tokenizer.encode(r1_prompt(schedule[0][0].question)))
    flops = sum(training_flops(model.config, [n + prompt for n in rows]) for rows in seen.trained)
    share = flops / clock.seconds["training"] / peak_flops()
    every = sum(map(len, seen.lengths))
    rows = sum(map(len, seen.trained)) / every
    return share, rows, [n for step in seen.lengths[1:] for n in step]


def _train_stock(
    folder: Path, recipe: Recipe, schedule: list[list[Problem]], work: Path, times: _StepTimes
) -> list[int]:
    """TRL as its documentation shows it, with the recipe's numbers and our reward."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from services.rewards import score

    rl = recipe.zero
    problems = [problem for step in schedule for problem in step]
    lengths: list[list[int]] = []

    def reward(
        prompts: list[str], completions: list[str], place: list[int], **extra: Any
    ) -> list[float | None]:
        lengths.append([len(ids) for ids in extra["completion_ids"]])
        pairs = zip(place, completions, strict=True)
        return [score(problems[at], text, weights=rl.weights).total for at, text in pairs]

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(work),
            per_device_train_batch_size=rl.prompts_per_step * rl.group_size,
            num_generations=rl.group_size,
            max_completion_length=rl.max_new_tokens,
            temperature=rl.temperature,
            learning_rate=rl.learning_rate,
            lr_scheduler_type="constant_with_warmup",
            max_steps=rl.steps,
            max_grad_norm=rl.max_grad_norm,
            beta=rl.kl_beta,
            epsilon=rl.clip_epsilon,
            loss_type=rl.estimator,
            scale_rewards=rl.scale_rewards,
            shuffle_dataset=False,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": r1_prompt(p.question), "place": i} for i, p in enumerate(problems)]
        ),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
    )
    times.attach(trainer)
    trainer.train()
    return [n for step in lengths[1:] for n in step]


def main() -> None:
    """Measure one side; the job comes on standard input, the figures go to standard output."""
    job = json.loads(sys.stdin.read())
    recipe = Recipe.model_validate_json(job["recipe"])
    seen = measure(job["side"], Path(job["folder"]), recipe, job["steps"])
    print(json.dumps(asdict(seen)))  # noqa: T201 - it is this process's answer


if __name__ == "__main__":
    main()
