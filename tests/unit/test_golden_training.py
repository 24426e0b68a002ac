"""A golden trajectory: loss, gradient norm, reward and length of a few exact GRPO steps."""

import json
import os
from pathlib import Path

import pytest
import torch

from services.clock import WorkClock
from services.config import RL, Engine, Problems, RewardWeights
from services.judging import score_function
from services.tasks.sources import rl_schedule
from services.training.grpo import train_rl
from services.training.job import RLJob
from services.types import Metrics, Rollout

GOLDEN = Path(__file__).parents[1] / "golden" / "grpo_trajectory.json"
BASE = Path(__file__).parents[2] / "services" / "bundled" / "tiny-student"
WATCHED = ("loss", "grad_norm", "reward/total", "length/mean", "language/consistency")


class Watcher:
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def resumed(self, step: int) -> None:
        assert step == 0

    def step(self, metrics: Metrics, rollouts: list[Rollout], held_out: object) -> None:
        self.seen.append({name: round(metrics.values[name], 6) for name in WATCHED})


def test_the_trajectory_is_the_golden_one(tmp_path):
    torch.set_num_threads(1)
    settings = RL(
        steps=3, prompts_per_step=4, group_size=4, learning_rate=1e-3, kl_beta=0.01,
        max_new_tokens=64, estimator="dapo", clip_epsilon=0.2,
    )  # fmt: skip
    job = RLJob(
        policy=BASE,
        output=tmp_path / "out",
        work=tmp_path / "work",
        settings=settings,
        engine=Engine(threads=1, device="cpu"),
        stream="golden",
        schedule=rl_schedule(Problems(levels=(3, 4)), settings, seed=1),
    )
    watcher = Watcher()
    with score_function(RewardWeights(language=0.5)) as score:
        train_rl(job, score, watcher, WorkClock())
    if os.environ.get("R1_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(watcher.seen, indent=1) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for step, (found, wanted) in enumerate(zip(watcher.seen, golden, strict=True)):
        for name in WATCHED:
            assert found[name] == pytest.approx(wanted[name], rel=2e-3, abs=2e-4), (step, name)
