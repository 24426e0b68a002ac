"""Who samples inside of reinforcement learning, as TRL is told; there is no GPU to run it on."""

from dataclasses import replace

import pytest

from services.config import RL, Engine
from services.config_engine import Vllm
from services.errors import RecipeError
from services.pretraining.tokenizer import build_tokenizer
from services.sampling import SampleRequest, SamplingSettings
from services.training.trl_settings import trl_config
from services.training.vllm_rollouts import VllmRollouts, vllm_arguments
from tests.unit.small_training import RL_SMALL, job


def config(tmp_path, **engine):
    launched = job(tmp_path, tmp_path)
    chosen = Engine(device="cpu", **engine)
    return trl_config(replace(launched, engine=chosen), 1e-3)


def test_the_local_sampler_needs_no_vllm(tmp_path):
    assert config(tmp_path).use_vllm is False


def test_colocated(tmp_path):
    vllm = Vllm(memory_share=0.4, tensor_parallel=2, max_model_length=2048)
    found = config(tmp_path, rollouts="vllm-colocate", vllm=vllm, gradient_checkpointing=True)
    assert (found.use_vllm, found.vllm_mode) == (True, "colocate")
    assert found.vllm_gpu_memory_utilization == 0.4
    assert found.vllm_tensor_parallel_size == 2
    assert found.vllm_max_model_length == 2048
    assert found.vllm_enable_sleep_mode is True
    assert found.vllm_importance_sampling_correction is False
    assert found.gradient_checkpointing is True


def test_a_server_is_the_one_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.delenv("R1_VLLM_URL", raising=False)
    with pytest.raises(RecipeError, match="Set R1_VLLM_URL"):
        config(tmp_path, rollouts="vllm-server")
    monkeypatch.setenv("R1_VLLM_URL", "http://gpu1:8000/v1/")
    found = config(tmp_path, rollouts="vllm-server")
    assert (found.use_vllm, found.vllm_mode) == (True, "server")
    assert found.vllm_server_base_url == "http://gpu1:8000"


def test_processes_that_would_not_sample_together_are_refused():
    engine = Engine(rollouts="vllm-colocate")
    watched = RL.model_validate(RL_SMALL.model_dump() | {"eval_every": 2})
    with pytest.raises(RecipeError, match="eval_every"):
        vllm_arguments(engine, watched)


class Generation:
    """Stands in for TRL's: gives each row the tokens of its place."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.synced = 0
        self.temperature = self.top_p = self.max_completion_length = 0.0

    def sync_weights(self) -> None:
        self.synced += 1

    def generate(self, prompts, images, num_generations):
        assert len(prompts) % num_generations == 0
        ids = [[5 + place, self.end if place % 2 else 9] for place in range(len(prompts))]
        return prompts, ids, [[[-0.5], [-0.25]] for _ in prompts], None


def test_groups_come_back_as_completions():
    tokenizer = build_tokenizer()
    generation = Generation(int(tokenizer.eos_token_id))
    told = {}
    groups = VllmRollouts(generation, tokenizer).sample(
        [SampleRequest("try 1", 2, 0), SampleRequest("try 2", 2, 1)],
        SamplingSettings(0.7, 2),
        lambda place, group: told.update({place: group}),
    )
    assert generation.synced == 1
    assert (generation.temperature, generation.max_completion_length) == (0.7, 2)
    assert [c.token_ids[0] for group in groups for c in group] == [5, 6, 7, 8]
    cut, ended = groups[0]
    assert (cut.truncated, ended.truncated) == (True, False)
    assert ended.text == tokenizer.decode([6])
    assert ended.logprobs == (-0.5, -0.25)
    assert told == {0: groups[0], 1: groups[1]}
