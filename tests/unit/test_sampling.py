"""The local sampler: exact log-probabilities, random streams of its own, groups, limits."""

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from services.pretraining.pretrain import Shape, new_model
from services.pretraining.tokenizer import build_tokenizer
from services.sampling import SampleRequest, SamplingSettings
from services.sampling.local import SHRINK_BELOW, LocalSampler, draw
from services.sampling.random_streams import stream_keys, uniforms

PLAIN = SamplingSettings(temperature=1.0, max_new_tokens=24)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    model = new_model(Shape(layers=2, width=16, heads=2, intermediate=32), tokenizer, seed=1)
    # A likely end of sequence makes rows finish at different times.
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 6
    return model.eval()


def requests(count: int, samples: int) -> list[SampleRequest]:
    prompts = ["make 3 from 1 2", "thank you !", "try 1 +2 =3 -4 =-1 . wait , try"]
    return [SampleRequest(prompts[i % 3], samples, seed=i) for i in range(count)]


def test_logprobs_are_those_of_a_plain_forward_pass(model, tokenizer):
    groups = LocalSampler(model, tokenizer, batch_size=64).sample(requests(3, 6), PLAIN)
    for request, group in zip(requests(3, 6), groups, strict=True):
        prompt = tokenizer.encode(request.prompt, add_special_tokens=False)
        for completion in group:
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0]
            logprobs = torch.log_softmax(logits.float(), -1)[len(prompt) - 1 : -1]
            wanted = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None]).squeeze(1)
            torch.testing.assert_close(
                torch.tensor(completion.logprobs), wanted, atol=2e-5, rtol=1e-4
            )


def test_rows_end_at_different_lengths_and_at_the_limit(model, tokenizer):
    rows = [c for g in LocalSampler(model, tokenizer).sample(requests(4, 16), PLAIN) for c in g]
    lengths = {len(row.token_ids) for row in rows}
    assert len(lengths) > 3
    for row in rows:
        assert len(row.token_ids) == len(row.logprobs) <= 24
        assert row.truncated == (row.token_ids[-1] != tokenizer.eos_token_id)
        assert "<eos>" not in row.text


@pytest.mark.parametrize("batch_size", [4, 16, 64])
def test_a_completion_does_not_depend_on_its_neighbours(model, tokenizer, batch_size):
    alone = [LocalSampler(model, tokenizer).sample([r], PLAIN)[0] for r in requests(5, 4)]
    together = LocalSampler(model, tokenizer, batch_size=batch_size).sample(requests(5, 4), PLAIN)
    assert [[c.token_ids for c in g] for g in alone] == [[c.token_ids for c in g] for g in together]


def test_prompts_are_read_once_for_their_group_and_finished_rows_leave(model, tokenizer):
    widths: list[tuple[int, int]] = []
    hook = model.base_model.register_forward_pre_hook(
        lambda _module, _args, named: widths.append(tuple(named["input_ids"].shape)),
        with_kwargs=True,
    )
    long = SamplingSettings(temperature=1.0, max_new_tokens=200)
    groups = LocalSampler(model, tokenizer, batch_size=64).sample(requests(3, 16), long)
    hook.remove()
    longest = max(len(tokenizer.encode(r.prompt, add_special_tokens=False)) for r in requests(3, 1))
    assert widths[0] == (3, longest), "three prompts, not 48 rows"
    assert all(columns == 1 for _, columns in widths[1:])
    rows = [row for row, _ in widths[1:]]
    assert rows[0] > rows[-1]
    assert rows == sorted(rows, reverse=True)
    lengths = [len(c.token_ids) for group in groups for c in group]
    for step, decoding in enumerate(rows, start=1):
        alive = sum(length > step for length in lengths)
        assert alive <= decoding <= alive / SHRINK_BELOW + 1


def test_more_samples_keep_the_first_ones(model, tokenizer):
    sampler = LocalSampler(model, tokenizer)
    few, many = (sampler.sample([SampleRequest("try", n, 7)], PLAIN)[0] for n in (2, 8))
    assert [c.token_ids for c in few] == [c.token_ids for c in many[:2]]
    assert len({c.token_ids for c in many}) > 1


def test_sampling_leaves_the_mode_of_the_model_alone(model, tokenizer):
    model.train()
    LocalSampler(model, tokenizer).sample(requests(1, 2), PLAIN)
    assert model.training
    model.eval()


def test_draw_follows_the_distribution():
    logits = torch.tensor([0.1, 0.2, 0.7]).log().repeat(20_000, 1)
    numbers = uniforms(stream_keys([3] * 20_000, list(range(20_000))), 0)
    tokens, logprobs = draw(logits, numbers, PLAIN)
    shares = torch.bincount(tokens, minlength=3) / len(tokens)
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.7]), atol=0.01, rtol=0)
    torch.testing.assert_close(logprobs[tokens == 2][0].exp(), torch.tensor(0.7))


def test_draw_at_a_temperature_and_in_a_nucleus():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().repeat(2_000, 1)
    numbers = uniforms(stream_keys([4] * 2_000, list(range(2_000))), 5)
    tokens, logprobs = draw(logits, numbers, SamplingSettings(0.5, 1, top_p=0.8))
    assert set(tokens.tolist()) == {0, 1}, "the third lies outside 0.8 of the mass"
    # 0.25 / (0.25 + 0.09 + 0.04): the temperature squares the weights
    torch.testing.assert_close(logprobs[tokens == 0][0].exp(), torch.tensor(0.25 / 0.38))


def test_streams_are_uniform_and_apart():
    keys = stream_keys([0] * 500 + [1] * 500, list(range(500)) * 2)
    assert len(set(keys.tolist())) == 1_000
    numbers = torch.stack([uniforms(keys, position) for position in range(100)])
    assert float(numbers.min()) >= 0.0
    assert float(numbers.max()) < 1.0
    assert abs(float(numbers.mean()) - 0.5) < 0.005
    correlation = torch.corrcoef(torch.stack([numbers[:-1].flatten(), numbers[1:].flatten()]))
    assert abs(float(correlation[0, 1])) < 0.01
