"""The training pass: lean gradients are TRL's, advantages TRL's, resuming is exact."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOTrainer

from services.clock import WorkClock
from services.config import RL
from services.training.advantages import group_advantages
from services.training.grpo import LeanGRPOTrainer, train_rl
from services.training.microbatches import micro_batches
from services.training.trl_settings import trl_config
from tests.unit.small_training import (
    RL_SMALL,
    Crash,
    CrashingRecorder,
    Recorder,
    ScoreByLength,
    job,
    rows_of_a_step,
    trainer_of,
    write_policy,
)

ESTIMATORS = ["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_policy(tmp_path_factory.mktemp("policy"))


def settings_of(estimator: str, beta: float) -> RL:
    level = "sequence" if estimator == "luspo" else "token"
    return RL.model_validate(
        RL_SMALL.model_dump()
        | {"estimator": estimator, "kl_beta": beta, "importance_sampling": level}
    )


def stock_trainer(lean: LeanGRPOTrainer) -> GRPOTrainer:
    """TRL's own trainer with the same settings, model and data."""

    def reward(completions: list[str], completion_ids: list[list[int]], **_: object) -> list[float]:
        return [float(len(ids) + sum(ids) % 7) for ids in completion_ids]

    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(lean.job.policy, dtype=torch.float32),
        args=trl_config(lean.job, 1e-3),
        reward_funcs=reward,
        train_dataset=lean.train_dataset,
        processing_class=AutoTokenizer.from_pretrained(lean.job.policy, padding_side="left"),
    )


@pytest.mark.parametrize(
    ("estimator", "beta"), [*((name, 0.0) for name in ESTIMATORS), ("grpo", 0.1), ("dapo", 0.1)]
)
def test_loss_and_gradient_are_those_of_stock_trl_on_a_batch_that_trl_made(
    policy, tmp_path, estimator, beta
):
    lean = trainer_of(job(policy, tmp_path, settings_of(estimator, beta)))
    stock = stock_trainer(lean)
    stock.model.train()
    batch = stock._generate_and_score_completions(rows_of_a_step(lean))
    batch["advantages"][:4] = 0.0  # a dead group, which the lean pass leaves out
    batch["old_per_token_logps"] = stock._get_per_token_logps_and_entropies(
        stock.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
        batch["completion_ids"].shape[1],
    )[0].detach()
    with torch.no_grad():  # away from the policy that sampled, and from the reference
        for one, two in zip(stock.model.parameters(), lean.model.parameters(), strict=True):
            step = torch.randn_like(one) * 0.02
            one.add_(step)
            two.add_(step)
    stock.current_gradient_accumulation_steps = lean.current_gradient_accumulation_steps = 1
    loss = stock._compute_loss(stock.model, batch)
    loss.backward()
    if beta:
        batch.pop("ref_per_token_logps")  # the lean pass computes its own

    lean._prepare_inputs = lambda _: batch
    found = lean.training_step(lean.model, None)
    torch.testing.assert_close(found, loss.detach(), atol=1e-6, rtol=1e-5)
    for (name, one), two in zip(
        stock.model.named_parameters(), lean.model.parameters(), strict=True
    ):
        assert one.grad.abs().max() > 0, name
        torch.testing.assert_close(two.grad, one.grad, atol=1e-6, rtol=1e-4)
    shown = lean._step_values
    assert shown["entropy"] > 0
    assert 0 <= shown["clip/share"] <= 1
    assert ("kl" in shown) == bool(beta)


def test_micro_batches_cover_live_rows_once_within_the_budget(policy, tmp_path):
    trainer = trainer_of(job(policy, tmp_path))
    batch = trainer._generate_and_score_completions(rows_of_a_step(trainer))
    batch["advantages"].fill_(1.0)[::3] = 0.0
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


MANY_STEPS_PER_ROLLOUT = {
    "steps": 8,
    "minibatches_per_rollout": 2,
    "epochs_per_rollout": 2,
    "kl_beta": 0.05,
    "reference_sync_steps": 3,
    "clip_epsilon": 0.2,
    "save_every": 2,
}


@pytest.mark.parametrize(
    ("changes", "crash", "resumed"),
    [({}, 4, 2), (MANY_STEPS_PER_ROLLOUT, 7, 6), (MANY_STEPS_PER_ROLLOUT, 5, 4)],
    ids=["plain", "inside a rollout", "between rollouts"],
)
def test_resuming_gives_the_run_that_was_never_broken(policy, tmp_path, changes, crash, resumed):
    """Bit for bit: weights, and everything that is recorded but for speeds."""
    settings = RL.model_validate(RL_SMALL.model_dump() | changes)
    straight = Recorder()
    train_rl(job(policy, tmp_path / "a", settings), ScoreByLength(), straight, WorkClock())

    broken = job(policy, tmp_path / "b", settings)
    with pytest.raises(Crash):
        train_rl(broken, ScoreByLength(), CrashingRecorder(crash), WorkClock())
    (broken.work / "checkpoint-99").mkdir()  # what a kill in the middle of saving leaves
    again = Recorder()
    train_rl(broken, ScoreByLength(), again, WorkClock())

    assert again.started_after == [resumed]
    assert not (broken.work / "checkpoint-99").exists()
    one, two = (load_file(tmp_path / x / "out" / "model.safetensors") for x in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [m.step for m in straight.steps] == list(range(1, settings.steps + 1))
    for before, after in zip(straight.steps[resumed:], again.steps, strict=True):
        for name in set(before.values) - {"tokens_per_second", "training/tokens_per_second"}:
            assert before.values[name] == after.values[name], (before.step, name)
    rows = settings.prompts_per_step * settings.group_size * settings.minibatches_per_rollout
    assert len(straight.rollouts) == settings.steps // settings.steps_per_rollout * rows


def test_training_moves_towards_the_reward(policy, tmp_path):
    settings = RL_SMALL.model_copy(update={"steps": 12, "learning_rate": 5e-3, "save_every": 50})
    seen = Recorder()
    train_rl(job(policy, tmp_path, settings), ScoreByLength(), seen, WorkClock())
    lengths = [m.values["length/mean"] for m in seen.steps]
    assert sum(lengths[-3:]) > sum(lengths[:3])


def test_sampler_and_trainer_agree_and_a_sampler_that_lies_is_seen(policy, tmp_path):
    trainer = trainer_of(job(policy, tmp_path, settings_of("dapo", 0.0)))
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions(rows_of_a_step(trainer))
    trainer._prepare_inputs = lambda _: batch
    trainer.training_step(trainer.model, None)
    assert 0 <= trainer._step_values["mismatch/kl"] < 1e-9
    assert trainer._step_values["mismatch/mean_abs"] < 1e-5
    batch["sampling_per_token_logps"] -= 0.5
    trainer.training_step(trainer.model, None)
    # k3 at a constant log-ratio of 0.5: e^0.5 − 1 − 0.5
    assert trainer._step_values["mismatch/kl"] == pytest.approx(0.148721, abs=1e-4)


def test_old_logprobs_are_computed_where_the_sampler_has_none(policy, tmp_path):
    settings = RL.model_validate(RL_SMALL.model_dump() | {"epochs_per_rollout": 2})
    trainer = trainer_of(job(policy, tmp_path, settings))
    rows = rows_of_a_step(trainer)
    said = trainer._generate_and_score_completions(rows)
    sample = trainer.maker.sampler.sample

    def silent(*asked):
        return [[replace(c, logprobs=()) for c in group] for group in sample(*asked)]

    trainer.maker.sampler.sample = silent
    computed = trainer._generate_and_score_completions(rows)
    assert "sampling_per_token_logps" not in computed
    torch.testing.assert_close(
        computed["old_per_token_logps"] * said["completion_mask"],
        said["old_per_token_logps"],
        atol=2e-5,
        rtol=1e-4,
    )


def test_questions_outside_the_band_are_replaced(policy, tmp_path):
    choice = {"rounds": 1, "min_pass_rate": 0.2, "max_pass_rate": 0.8}
    settings = RL.model_validate(RL_SMALL.model_dump() | {"steps": 1, "choice": choice})
    seen, chosen = Recorder(), job(policy, tmp_path, settings)
    train_rl(chosen, ScoreByLength(), seen, WorkClock())
    values, spares = seen.steps[0].values, {problem.id for problem in chosen.spares}
    replaced = {row.problem.id for row in seen.rollouts} & spares
    asked = {problem.id for problem in chosen.schedule[0]}
    assert replaced
    assert len(replaced) / 3 == values["groups/replaced"]
    assert values["groups/replaced"] == values["groups/too_easy"] + values["groups/too_hard"]
    assert {row.problem.id for row in seen.rollouts} <= spares | asked


def test_the_longer_limit_sets_in_at_its_step(policy, tmp_path):
    longer = {"max_new_tokens": 4, "max_new_tokens_later": 12, "max_new_tokens_later_from": 1}
    settings = RL.model_validate(RL_SMALL.model_dump() | {"steps": 2, **longer})
    seen = Recorder()
    train_rl(job(policy, tmp_path, settings), ScoreByLength(), seen, WorkClock())
    lengths = [len(row.completion.token_ids) for row in seen.rollouts]
    assert max(lengths[:12]) == 4
    assert max(lengths[12:]) > 4
