"""Adapters: only they train, what is written is merged, sampling sees them, resuming is exact."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from services.clock import WorkClock
from services.config import RL, SFT, Engine
from services.config_adapters import Adapter
from services.errors import RecipeError
from services.prompts import r1_prompt
from services.recipes import load_recipe
from services.sampling import SampleRequest, SamplingSettings
from services.training.adapters import adapter_weights, plain, require_adapters
from services.training.grpo import train_rl
from services.training.sft import SFTJob, SFTRow, train_sft
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

LORA = Adapter(rank=4, alpha=8.0)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    return write_policy(tmp_path_factory.mktemp("policy"))


def with_lora(settings: RL = RL_SMALL, **changes: object) -> RL:
    return settings.model_copy(update={"lora": LORA, "learning_rate": 1e-2, **changes})


def test_only_adapters_train_and_the_result_is_base_plus_their_product(policy, tmp_path):
    work = job(policy, tmp_path, with_lora())
    trainer = trainer_of(work)
    trainable = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    trainer.train()
    frozen = plain(trainer.model).state_dict()
    before = load_file(policy / "model.safetensors")
    for name, weight in before.items():
        found = next(v for k, v in frozen.items() if k.replace(".base_layer", "") == name)
        assert torch.equal(found, weight), name

    pairs = adapter_weights(trainer.model)
    train_rl(work_elsewhere(work, tmp_path), ScoreByLength(), Recorder(), WorkClock())
    after = load_file(tmp_path / "again" / "out" / "model.safetensors")
    assert after.keys() == before.keys(), "a plain checkpoint"
    moved = 0
    for name, weight in before.items():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{layer}.lora_A.default.weight" not in pairs:
            assert torch.equal(after[name], weight), name
            continue
        a, b = (pairs[f"{layer}.lora_{x}.default.weight"] for x in "AB")
        torch.testing.assert_close(after[name], weight + 2.0 * b @ a, atol=1e-6, rtol=1e-5)
        moved += int(not torch.equal(after[name], weight))
    assert moved >= 14, "seven linear layers in each of two layers"


def work_elsewhere(work, tmp_path):
    """The same job without what the first trainer left."""
    return job(work.policy, tmp_path / "again", work.settings)


def test_the_sampler_sees_the_adapters(policy, tmp_path):
    trainer = trainer_of(job(policy, tmp_path, with_lora()))
    request = [SampleRequest(r1_prompt("make 3 from 1 2"), 4, 3)]
    how = SamplingSettings(1.0, 12)
    first = trainer.maker.sampler.sample(request, how)[0]
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    (group,) = trainer.maker.sampler.sample(request, how)
    assert [c.token_ids for c in group] != [c.token_ids for c in first]
    prompt = trainer.tokenizer.encode(request[0].prompt, add_special_tokens=False)
    for completion in group:
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        with torch.no_grad():
            logprobs = torch.log_softmax(trainer.model(ids).logits[0], -1)[len(prompt) - 1 : -1]
        wanted = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None]).squeeze(1)
        torch.testing.assert_close(torch.tensor(completion.logprobs), wanted, atol=2e-5, rtol=1e-4)


def test_the_reference_of_adapters_is_what_lies_beneath(policy, tmp_path):
    settings = with_lora(kl_beta=0.1, reference_sync_steps=0)
    trainer = trainer_of(job(policy, tmp_path, settings))
    plain_trainer = trainer_of(job(policy, tmp_path / "b", RL_SMALL))
    batch = trainer._generate_and_score_completions(rows_of_a_step(trainer))
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    with torch.no_grad():
        wanted, moved = (
            t._get_per_token_logps_and_entropies(t.model, ids, mask, width)[0]
            for t in (plain_trainer, trainer)
        )
    found = trainer._reference_logps(batch)
    real = batch["completion_mask"].bool()
    torch.testing.assert_close(found[real], wanted[real], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(moved[real], wanted[real], atol=1e-3)


def test_resuming_with_adapters_gives_the_weights_of_an_unbroken_run(policy, tmp_path):
    torch.set_num_threads(1)
    train_rl(job(policy, tmp_path / "a", with_lora()), ScoreByLength(), Recorder(), WorkClock())
    broken = job(policy, tmp_path / "b", with_lora())
    with pytest.raises(Crash):
        train_rl(broken, ScoreByLength(), CrashingRecorder(at=4), WorkClock())
    again = Recorder()
    train_rl(broken, ScoreByLength(), again, WorkClock())
    assert again.started_after == [2]
    one, two = (load_file(tmp_path / x / "out" / "model.safetensors") for x in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)


class Killed(Exception):
    """Stands for the end of the process."""


def test_fine_tuning_with_adapters_learns_and_resumes_exactly(policy, tmp_path):
    torch.set_num_threads(1)
    rows = [SFTRow(r1_prompt(f"make {n} from 1 2"), "<think> yes ! </think>") for n in range(1, 9)]

    def fine_tuning(where: str) -> SFTJob:
        settings = SFT(
            epochs=6, learning_rate=2e-2, batch_size=8, max_length=200, lora=LORA
        )  # fmt: skip
        return SFTJob(
            policy, tmp_path / where / "out", tmp_path / where / "work", settings,
            Engine(threads=1, device="cpu"), 0, rows,
        )  # fmt: skip

    losses: list[float] = []
    train_sft(
        fine_tuning("a"), lambda m: losses.append(m.values["loss"]), WorkClock(), save_every=2
    )
    assert losses[-1] < losses[0] - 0.5

    def kill(metrics) -> None:
        if metrics.step == 5:
            raise Killed

    with pytest.raises(Killed):
        train_sft(fine_tuning("b"), kill, WorkClock(), save_every=2)
    train_sft(fine_tuning("b"), lambda _: None, WorkClock(), save_every=2)
    one, two = (load_file(tmp_path / x / "out" / "model.safetensors") for x in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not Path(tmp_path / "a" / "out" / "adapter_config.json").exists()


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValidationError, match="quantise needs a rank"):
        Adapter(quantise="4bit")
    with pytest.raises(RecipeError, match="reference_sync_steps to 0"):
        load_recipe(
            "tiny", ["zero.lora.rank=4", "zero.kl_beta=0.01", "zero.reference_sync_steps=9"]
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_4_bit_weights_without_a_gpu_are_refused_before_anything_runs():
    recipe = load_recipe("tiny", ["dev2.lora.rank=4", "dev2.lora.quantise=4bit"])
    with pytest.raises(RecipeError, match="need an NVIDIA GPU"):
        require_adapters(recipe)
    require_adapters(load_recipe("tiny", ["dev2.lora.rank=4"]))
