"""The training pass: lean gradients are plain ones, advantages TRL's, resuming is exact."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from services.clock import WorkClock
from services.config import RL, Engine, Problems
from services.pretraining.pretrain import Shape, new_model
from services.pretraining.tokenizer import build_tokenizer
from services.tasks.sources import rl_schedule
from services.training.advantages import group_advantages
from services.training.grpo import LeanGRPOTrainer, train_rl
from services.training.guards import Finding
from services.training.job import RLJob
from services.training.microbatches import micro_batches
from services.types import Metrics, Rollout, Score, Verdict

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
        self.started_after: list[int] = []
        self.alarms: list[tuple[int, Finding]] = []

    def resumed(self, step: int) -> None:
        self.started_after.append(step)

    def step(self, metrics: Metrics, rollouts: list[Rollout]) -> None:
        self.steps.append(metrics)
        self.rollouts += rollouts

    def alarm(self, step: int, finding: Finding) -> None:
        self.alarms.append((step, finding))


class Crash(Exception):
    """Stands for the end of the process."""


class CrashingRecorder(Recorder):
    """Fails at a step, as if the process had been killed there."""

    def step(self, metrics: Metrics, rollouts: list[Rollout]) -> None:
        if metrics.step == 4:
            raise Crash
        super().step(metrics, rollouts)


class ScoreByLength:
    """A reward that differs within groups: longer is better, the very short are unscorable."""

    def begin(self, problem, group) -> None:
        pass

    def __call__(self, problems, groups, *, max_tokens=0) -> list[list[Score]]:
        return [
            [
                Score(Verdict.UNSCORABLE, "too short", {}, None)
                if len(c.token_ids) < 3
                else Score(
                    Verdict.CORRECT, "", {"format": 1.0}, len(c.token_ids) + sum(c.token_ids) % 7
                )
                for c in group
            ]
            for group in groups
        ]


score_by_length = ScoreByLength()


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
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
    )


def trainer_of(job: RLJob) -> LeanGRPOTrainer:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return LeanGRPOTrainer(
        job,
        AutoModelForCausalLM.from_pretrained(job.policy, dtype=torch.float32),
        AutoTokenizer.from_pretrained(job.policy, padding_side="left"),
        score_by_length,
        Recorder(),
        WorkClock(),
    )


@pytest.mark.parametrize("estimator", ["grpo", "dapo", "dr_grpo", "bnpo"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_lean_pass_has_the_gradient_of_trls_loss_on_the_whole_batch(
    policy, tmp_path, estimator, beta
):
    settings = RL_SMALL.model_copy(update={"estimator": estimator, "kl_beta": beta})
    trainer = trainer_of(job(policy, tmp_path, settings))
    trainer.current_gradient_accumulation_steps = 1
    rows = [row for row in trainer.train_dataset for _ in range(4)][:12]
    batch = trainer._generate_and_score_completions(rows)
    if beta:
        with torch.no_grad():
            for parameter in trainer.model.parameters():  # away from the reference
                parameter.add_(torch.randn_like(parameter) * 0.01)
    model = trainer.model
    plain = dict(batch)
    if beta:
        plain["ref_per_token_logps"] = trainer._logps_of(trainer.ref_model, batch)
    model.train()
    loss = trainer._compute_loss(model, plain)
    loss.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    lean = trainer_of_same_batch(trainer, batch)
    torch.testing.assert_close(lean, loss.detach(), atol=1e-6, rtol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-6, rtol=1e-4)


def trainer_of_same_batch(trainer: LeanGRPOTrainer, batch) -> torch.Tensor:
    """Run the trainer's own training step on a batch that is already there."""
    trainer._prepare_inputs = lambda _: batch
    return trainer.training_step(trainer.model, None)


def test_micro_batches_cover_live_rows_once_within_the_budget(policy, tmp_path):
    trainer = trainer_of(job(policy, tmp_path))
    rows = [row for row in trainer.train_dataset for _ in range(4)][:12]
    batch = trainer._generate_and_score_completions(rows)
    batch["advantages"][::3] = 0.0
    parts = list(
        micro_batches(batch, estimator="dapo", token_budget=120, skip_idle=True, all_tokens=1.0)
    )
    assert len(parts) > 1
    assert sum(len(part.inputs["advantages"]) for part in parts) == 8
    for part in parts:
        width = part.inputs["prompt_ids"].shape[1] + part.inputs["completion_ids"].shape[1]
        assert width * len(part.inputs["advantages"]) <= 120


def test_advantages_leave_unscorable_rows_out():
    # rewards 1, 3, unscorable: mean 2, deviation √2 (n−1)
    found = group_advantages([1.0, 3.0, None, 5.0, 5.0, 5.0], [True] * 6, 3, "group")
    expected = 1 / (2**0.5 + 1e-4)
    torch.testing.assert_close(
        found.advantages, torch.tensor([-expected, expected, 0.0, 0.0, 0.0, 0.0])
    )
    assert found.dead_right == 0.5
    assert found.dead_wrong == 0.0


def test_resuming_gives_the_weights_of_an_unbroken_run(policy, tmp_path):
    torch.set_num_threads(1)
    straight = Recorder()
    train_rl(job(policy, tmp_path / "a"), score_by_length, straight, WorkClock())

    broken = job(policy, tmp_path / "b")
    with pytest.raises(Crash):
        train_rl(broken, score_by_length, CrashingRecorder(), WorkClock())
    (broken.work / "checkpoint-3").mkdir()  # what a kill in the middle of saving leaves
    again = Recorder()
    train_rl(broken, score_by_length, again, WorkClock())

    assert again.started_after == [2]
    assert not (broken.work / "checkpoint-3").exists()
    one, two = (load_file(tmp_path / x / "out" / "model.safetensors") for x in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [m.step for m in straight.steps] == [1, 2, 3, 4]
    assert [m.values["loss"] for m in straight.steps[2:]] == [m.values["loss"] for m in again.steps]
    assert len(straight.rollouts) == 4 * 12


def test_training_moves_towards_the_reward(policy, tmp_path):
    settings = RL_SMALL.model_copy(update={"steps": 12, "learning_rate": 5e-3, "save_every": 50})
    seen = Recorder()
    train_rl(job(policy, tmp_path, settings), score_by_length, seen, WorkClock())
    lengths = [m.values["length/mean"] for m in seen.steps]
    assert sum(lengths[-3:]) > sum(lengths[:3])
