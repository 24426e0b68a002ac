"""Sampling from an endpoint: what is asked, what comes back, and what is said when it does not."""

import pytest

from services.config import Engine
from services.config_engine import Endpoint
from services.evaluation import open_sampler
from services.pretraining.tokenizer import build_tokenizer
from services.sampling import SampleRequest, SamplingSettings, endpoint
from services.sampling.endpoint import (
    EndpointError,
    EndpointSampler,
    Place,
    place_from_environment,
    stop_ids_of,
)
from tests.unit.fake_endpoint import fake_endpoint
from tests.unit.small_training import write_policy

PLAIN = SamplingSettings(temperature=1.0, max_new_tokens=8)
FEW = Endpoint(concurrency=2, retries=2, timeout_seconds=10)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT_SECONDS", 0.01)
    with fake_endpoint() as server:
        yield server


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def sampler(server, tokenizer, settings=FEW, **place) -> EndpointSampler:
    return EndpointSampler(Place(server.url, "served", **place), tokenizer, settings)


def requests(count: int, samples: int) -> list[SampleRequest]:
    return [SampleRequest("make 3 from 1 2", samples, seed=100 * i) for i in range(count)]


@pytest.mark.parametrize("takes_n", [True, False])
def test_groups_come_in_the_order_asked_for_with_a_seed_for_each_sample(server, tokenizer, takes_n):
    server.takes_n = takes_n
    told = {}
    groups = sampler(server, tokenizer).sample(
        requests(5, 3), PLAIN, lambda place, group: told.update({place: group})
    )
    for i, group in enumerate(groups):
        assert [c.text for c in group] == [f"try {(100 * i + s) % 9}" for s in range(3)]
        assert told[i] == group
    assert len(server.asked) == (5 if takes_n else 15)
    assert server.most_at_once <= 2


def test_tokens_are_counted_and_the_end_is_one_of_them(server, tokenizer):
    (group,) = sampler(server, tokenizer).sample(requests(1, 2), PLAIN)
    ended, cut = group
    assert (ended.truncated, cut.truncated) == (False, True)
    first, second = (tokenizer.encode(f"try {n}", add_special_tokens=False) for n in (0, 1))
    assert ended.token_ids == (*first, tokenizer.eos_token_id)
    assert cut.token_ids == tuple(second)
    assert ended.logprobs == (-0.5, -0.25, -1.0)
    assert cut.logprobs == (-0.5, -0.25)


@pytest.mark.parametrize(
    ("settings", "tempered", "given"),
    [
        (PLAIN, False, True),
        (SamplingSettings(0.6, 8), False, False),
        (SamplingSettings(0.6, 8), True, True),
        (SamplingSettings(1.0, 8, top_p=0.9), True, False),
    ],
)
def test_logprobs_are_kept_only_where_they_mean_what_is_promised(
    server, tokenizer, settings, tempered, given
):
    (group,) = sampler(server, tokenizer, tempered=tempered).sample(requests(1, 1), settings)
    assert bool(group[0].logprobs) is given
    assert ("logprobs" in server.asked[0]) is given


def test_vllm_is_asked_by_tokens(server, tokenizer):
    server.owner = "vllm"
    engine = EndpointSampler(Place(server.url, "served"), tokenizer, FEW, stop_ids=[5, 7])
    engine.sample(requests(1, 1), PLAIN)
    asked = server.asked[0]
    assert asked["prompt"] == tokenizer.encode("make 3 from 1 2", add_special_tokens=False)
    assert asked["stop_token_ids"] == [5, 7]
    assert asked["return_token_ids"] is True


def test_failures_that_may_pass_are_tried_again_so_many_times(server, tokenizer):
    server.failures = [503, 429]
    assert sampler(server, tokenizer).sample(requests(1, 1), PLAIN)[0][0].text == "try 0"
    server.failures = [500] * 9
    with pytest.raises(EndpointError, match="answers 500: not now, after 3 tries"):
        sampler(server, tokenizer).sample(requests(1, 1), PLAIN)
    assert len(server.failures) == 6


def test_faults_are_named(server, tokenizer, monkeypatch):
    server.failures = [400]
    with pytest.raises(EndpointError, match=r"refuses the request \(400\): not now"):
        sampler(server, tokenizer).sample(requests(1, 1), PLAIN)
    server.key = "secret"
    with pytest.raises(EndpointError, match="R1_SAMPLER_API_KEY"):
        sampler(server, tokenizer).sample(requests(1, 1), PLAIN)
    assert sampler(server, tokenizer, api_key="secret").sample(requests(1, 1), PLAIN)
    server.model = "another"
    with pytest.raises(EndpointError, match="does not serve served, only another"):
        sampler(server, tokenizer).sample(requests(1, 1), PLAIN)
    nobody = EndpointSampler(Place("http://127.0.0.1:9/v1", "x"), tokenizer, Endpoint(retries=0))
    with pytest.raises(EndpointError, match="does not answer"):
        nobody.sample(requests(1, 1), PLAIN)


def test_a_stage_samples_from_the_endpoint_that_the_environment_names(
    server, tmp_path, monkeypatch
):
    policy = write_policy(tmp_path / "dev1-abc")
    monkeypatch.delenv("R1_SAMPLER_URL", raising=False)
    with pytest.raises(EndpointError, match="R1_SAMPLER_URL"):
        place_from_environment(policy)
    monkeypatch.setenv("R1_SAMPLER_URL", server.url + "/")
    assert place_from_environment(policy).model == str(policy)
    monkeypatch.setenv("R1_SAMPLER_MODEL", "r1/{name}")
    server.model = "r1/dev1-abc"
    with open_sampler(policy, Engine(sampler="openai")) as engine:
        assert engine.sample(requests(1, 2), PLAIN)[0][1].text == "try 1"


def test_what_ends_a_sequence_is_read_from_the_checkpoint(tmp_path, tokenizer):
    policy = write_policy(tmp_path / "policy")
    assert stop_ids_of(policy, tokenizer) == [tokenizer.eos_token_id]
    (policy / "generation_config.json").write_text('{"eos_token_id": [3, 4]}')
    assert stop_ids_of(policy, tokenizer) == [3, 4]
