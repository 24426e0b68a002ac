"""Rollouts by vLLM inside of reinforcement learning, as TRL runs it, behind the sampler's protocol.

*Colocate* puts vLLM on the trainer's own GPUs; *server* asks the vLLM server at ``R1_VLLM_URL``. In
both, TRL moves the policy's weights over before each rollout. What is given up: vLLM draws from a
generator of its own, so completions are not addressed by seed, and its log-probabilities differ a
little from the trainer's; the probability ratio of the loss is taken against vLLM's own.
"""

import os
from collections.abc import Sequence
from typing import Any

from services.config import RL, Engine
from services.errors import RecipeError
from services.sampling import GroupDone, SampleRequest, SamplingSettings
from services.types import Completion


def vllm_arguments(engine: Engine, rl: RL) -> dict[str, Any]:
    """The arguments of TRL's configuration that say who samples.

    Raises:
        RecipeError: A server is asked for and none is named, or processes would not sample
            together.
    """
    if engine.rollouts == "local":
        return {}
    if rl.eval_every or rl.choice.rounds:
        raise RecipeError(
            f"engine.rollouts is {engine.rollouts}, which samples for all processes at once",
            "Set eval_every and choice.rounds of the stage to 0, or engine.rollouts to local",
        )
    # TRL's own correction needs the log-probabilities of both engines at sampling time; the ratio
    # in the loss against vLLM's already holds it.
    arguments = {"use_vllm": True, "vllm_importance_sampling_correction": False}
    if engine.rollouts == "vllm-colocate":
        return arguments | {
            "vllm_mode": "colocate",
            "vllm_gpu_memory_utilization": engine.vllm.memory_share,
            "vllm_tensor_parallel_size": engine.vllm.tensor_parallel,
            "vllm_max_model_length": engine.vllm.max_model_length or None,
            "vllm_enable_sleep_mode": True,
        }
    url = os.environ.get("R1_VLLM_URL", "").removesuffix("/").removesuffix("/v1")
    if not url:
        raise RecipeError(
            "engine.rollouts is vllm-server, and no server is named",
            "Set R1_VLLM_URL to the address of a server that vllm serve has started",
        )
    return arguments | {
        "vllm_mode": "server",
        "vllm_server_base_url": url,
        "vllm_server_timeout": float(engine.vllm.startup_seconds),
    }


class VllmRollouts:
    """A sampler over the vLLM of a TRL trainer.

    Args:
        generation: The trainer's ``vllm_generation``.
        tokenizer: The policy's.
    """

    def __init__(self, generation: Any, tokenizer: Any) -> None:
        self.generation = generation
        self.tokenizer = tokenizer

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        group_done: GroupDone | None = None,
    ) -> list[list[Completion]]:
        """Completions per request; all requests of a rollout have the same number of samples.

        Every training process must call this at the same time, because weights and prompts are
        gathered.
        """
        size = requests[0].samples
        assert all(request.samples == size for request in requests)
        generation = self.generation
        generation.temperature = settings.temperature
        generation.top_p = settings.top_p
        generation.max_completion_length = settings.max_new_tokens
        generation.sync_weights()
        prompts = [
            ids
            for request in requests
            for ids in [self.tokenizer.encode(request.prompt, add_special_tokens=False)] * size
        ]
        _, completions, logprobs, _ = generation.generate(
            prompts=prompts, images=None, num_generations=size
        )
        stops = {int(self.tokenizer.eos_token_id)}
        rows = [
            self._completion(list(ids), [float(values[0]) for values in of_row], stops)
            for ids, of_row in zip(completions, logprobs, strict=True)
        ]
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        for place, group in enumerate(groups):
            if group_done:
                group_done(place, group)
        return groups

    def _completion(self, ids: list[int], logprobs: list[float], stops: set[int]) -> Completion:
        truncated = not ids or ids[-1] not in stops
        text = self.tokenizer.decode(ids if truncated else ids[:-1])
        return Completion(text, tuple(ids), tuple(logprobs), truncated)
