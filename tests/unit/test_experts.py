"""A mixture of experts: sampling under latent attention is exact, loads add up, dense is dense."""

import pytest
import torch
from transformers import DeepseekV3ForCausalLM, PreTrainedTokenizerFast

from services.pretraining.moe import BIAS_SPEED, Balance, MoEShape
from services.pretraining.pretrain import new_model
from services.pretraining.tokenizer import build_tokenizer
from services.sampling import SampleRequest, SamplingSettings
from services.sampling.local import LocalSampler
from services.training.experts import ExpertWatch, routers_of, routing_entropy
from tests.unit.small_training import (
    RL_SMALL,
    SMALL,
    job,
    rows_of_a_step,
    trainer_of,
    write_policy,
)

MOE_SMALL = MoEShape(
    layers=3, width=16, heads=2, intermediate=32, dense_layers=1, experts=4, chosen=2,
    expert_intermediate=8, query_rank=8, key_value_rank=6, plain_dims=6, rotary_dims=4,
    value_dims=5,
)  # fmt: skip
PLAIN = SamplingSettings(temperature=1.0, max_new_tokens=24)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> DeepseekV3ForCausalLM:
    model = new_model(MOE_SMALL, tokenizer, seed=1)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 8
    return model.eval()


def requests(samples: int = 6) -> list[SampleRequest]:
    prompts = ["make 3 from 1 2", "thank you !", "try 1 +2 =3 -4 =-1 . wait , try"]
    return [SampleRequest(prompt, samples, seed) for seed, prompt in enumerate(prompts)]


def test_logprobs_under_latent_attention_are_those_of_a_plain_forward_pass(model, tokenizer):
    groups = LocalSampler(model, tokenizer, batch_size=64).sample(requests(), PLAIN)
    lengths = set()
    for request, group in zip(requests(), groups, strict=True):
        prompt = tokenizer.encode(request.prompt, add_special_tokens=False)
        for completion in group:
            lengths.add(len(completion.token_ids))
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0]
            logprobs = torch.log_softmax(logits.float(), -1)[len(prompt) - 1 : -1]
            wanted = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None]).squeeze(1)
            torch.testing.assert_close(
                torch.tensor(completion.logprobs), wanted, atol=2e-5, rtol=1e-4
            )
    assert len(lengths) > 1, "rows left the batch at different times"


def test_a_completion_of_experts_does_not_depend_on_its_neighbours(model, tokenizer):
    alone = [LocalSampler(model, tokenizer).sample([r], PLAIN)[0] for r in requests(4)]
    together = LocalSampler(model, tokenizer, batch_size=64).sample(requests(4), PLAIN)
    assert [[c.token_ids for c in g] for g in alone] == [[c.token_ids for c in g] for g in together]


def test_loads_are_shares_of_the_choices_of_counted_positions(model):
    ids = torch.randint(0, model.config.vocab_size, (4, 9), generator=torch.manual_seed(0))
    counted = torch.zeros(4, 9, dtype=torch.bool)
    counted[:, 4:] = True
    chosen: list[torch.Tensor] = []
    hooks = [
        router.register_forward_hook(lambda _m, _i, out: chosen.append(out[-1]))
        for router in routers_of(model)
    ]
    watch = ExpertWatch(model, ["countdown", "general"])
    with torch.no_grad(), watch.watching(counted, torch.tensor([0, 0, 0, 1])):
        model(ids)
    for hook in hooks:
        hook.remove()
    values = watch.take()
    for layer, indices in enumerate(chosen):
        of_kind = indices.view(4, 9, 2)[:3, 4:]
        for expert in range(4):
            share = (of_kind == expert).float().mean()
            assert values[f"moe/load/countdown/{layer}.{expert}"] == pytest.approx(float(share))
    for kind in ("countdown", "general"):
        for layer in range(2):
            loads = [values[f"moe/load/{kind}/{layer}.{expert}"] for expert in range(4)]
            assert sum(loads) == pytest.approx(1.0)
    assert 0.25 <= values["moe/load_max"] <= 0.5, "two of four are chosen: none takes over half"
    assert 0.0 < values["moe/balance"] <= 1.0
    assert 0.0 < values["moe/entropy"] <= torch.tensor(4.0).log() + 1e-6
    assert values["moe/apart/general"] > values["moe/apart/countdown"] > 0
    assert watch.take() == {}, "taken once"
    with torch.no_grad():
        model(ids)
    assert watch.take() == {}, "no hook stays"


def test_entropy_of_even_scores_is_that_of_a_uniform_choice(model):
    (router, *_) = routers_of(model)
    found = routing_entropy(router, torch.zeros(3, 4))
    torch.testing.assert_close(found, torch.full((3,), 4.0).log())


def test_balancing_moves_the_bias_against_the_load(tokenizer):
    model = new_model(MOE_SMALL, tokenizer, seed=3)
    router = routers_of(model)[0]
    with torch.no_grad():
        router.e_score_correction_bias[0] = 5.0  # everybody takes the first expert
    before = router.e_score_correction_bias.clone()
    balance = Balance(model)
    with balance.counting(torch.ones(2, 8, dtype=torch.bool)):
        model(torch.randint(0, 50, (2, 8), generator=torch.manual_seed(1)))
    balance.step()
    moved = router.e_score_correction_bias - before
    assert float(moved[0]) == pytest.approx(-BIAS_SPEED, rel=1e-3)
    assert float(moved[1:].max()) == pytest.approx(BIAS_SPEED, rel=1e-3)
    balance.step()
    assert torch.equal(router.e_score_correction_bias - before, moved), "nothing new was seen"


def test_training_logs_experts_at_every_step_and_dense_models_know_nothing(tokenizer, tmp_path):
    folder = tmp_path / "moe"
    model = new_model(MOE_SMALL, tokenizer, seed=2)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 4
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    trainer = trainer_of(job(folder, tmp_path / "a"))
    bias = [router.e_score_correction_bias.clone() for router in trainer.experts.routers]
    trainer.train()
    assert len(trainer.recorder.steps) == RL_SMALL.steps
    for metrics in trainer.recorder.steps:
        loads = [metrics.values[f"moe/load/countdown/0.{expert}"] for expert in range(4)]
        assert sum(loads) == pytest.approx(1.0)
        assert metrics.values["moe/apart/countdown"] == pytest.approx(0.0, abs=1e-6)
        assert metrics.values["mismatch/mean_abs"] < 1e-5, "sampler and trainer agree"
    for router, before in zip(trainer.experts.routers, bias, strict=True):
        assert torch.equal(router.e_score_correction_bias, before), "choice moves by weights alone"

    dense = trainer_of(job(write_policy(tmp_path / "dense"), tmp_path / "b"))
    assert routers_of(new_model(SMALL, tokenizer, seed=0)) == []
    batch = dense._generate_and_score_completions(rows_of_a_step(dense))
    assert "kinds" not in batch
    dense.train()
    assert not any(name.startswith("moe/") for name in dense.recorder.steps[0].values)
