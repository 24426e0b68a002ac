"""The local sampler against ``generate`` of transformers: the same weights, prompts and limits.

Both draw from the plain distribution of the model until the end of the sequence or the limit, so
lengths are as the model writes them. Rounds alternate, and medians are compared, because other
programs on the machine come and go. Only real tokens count, never padding.
Where ``make vllm`` has installed it, a vLLM server answers the same prompts afterwards.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from services.bench.machine import median
from services.config import Engine, Problems
from services.config_engine import Endpoint
from services.prompts import r1_prompt
from services.sampling import SampleRequest, SamplingSettings
from services.sampling.endpoint import EndpointSampler, stop_ids_of
from services.sampling.local import LocalSampler
from services.sampling.random_streams import stream_seed
from services.sampling.vllm_server import VllmError, vllm_python, vllm_server
from services.tasks.sources import training_problems
from services.training.machine import device_of, prepare_machine
from services.training.policies import load_policy


@dataclass(frozen=True, slots=True)
class SamplerBench:
    """Figures of one model on one machine."""

    model: str
    threads: int
    load: float
    """Load average before the measurement; above 0, others took their share."""
    sequences: int
    max_new_tokens: int
    mean_length: float
    """Of our completions, in tokens."""
    rounds: int
    completions_per_second: float
    tokens_per_second: float
    generate_mean_length: float
    generate_completions_per_second: float
    generate_tokens_per_second: float
    completions_ratio: float
    """Ours over generate's."""
    tokens_ratio: float
    vllm_tokens_per_second: float | None = None
    """Of a vLLM server in its own number format; None where it is not installed."""
    vllm_mean_length: float | None = None
    vllm_ratio: float | None = None
    """Tokens per second, ours over vLLM's."""


def bench(
    folder: Path,
    problems: Problems,
    *,
    prompts: int = 16,
    group_size: int = 16,
    max_new_tokens: int = 256,
    rounds: int = 3,
) -> SamplerBench:
    """Sample the same groups with both, several times in turn."""
    engine = Engine(batch_size=prompts * group_size)
    prepare_machine(engine)
    load = os.getloadavg()[0]
    model = load_policy(folder, device_of(engine)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    asked = [r1_prompt(problem.question) for problem in training_problems(problems, 7, prompts)]
    settings = SamplingSettings(1.0, max_new_tokens)
    sampler = LocalSampler(model, tokenizer, batch_size=engine.batch_size)

    def ours(turn: int) -> list[int]:
        seeds = [stream_seed(f"bench/{turn}/{place}") for place in range(prompts)]
        requests = [
            SampleRequest(prompt, group_size, seed)
            for prompt, seed in zip(asked, seeds, strict=True)
        ]
        groups = sampler.sample(requests, settings)
        return [len(completion.token_ids) for group in groups for completion in group]

    def theirs(turn: int) -> list[int]:
        return _generate(model, tokenizer, asked, group_size, max_new_tokens, turn)

    taken: dict[Callable[[int], list[int]], list[tuple[float, list[int]]]] = {ours: [], theirs: []}
    for way in taken:
        way(0)  # caches and allocators warm up
    for turn in range(1, rounds + 1):
        for way, seen in taken.items():
            started = time.perf_counter()
            lengths = way(turn)
            seen.append((time.perf_counter() - started, lengths))
    mine, other = _rates(taken[ours]), _rates(taken[theirs])
    served = _vllm(folder, engine, asked, group_size, settings, rounds)
    return SamplerBench(
        model=folder.name,
        threads=torch.get_num_threads(),
        load=load,
        sequences=prompts * group_size,
        max_new_tokens=max_new_tokens,
        mean_length=mine[2],
        rounds=rounds,
        completions_per_second=mine[0],
        tokens_per_second=mine[1],
        generate_mean_length=other[2],
        generate_completions_per_second=other[0],
        generate_tokens_per_second=other[1],
        completions_ratio=mine[0] / other[0],
        tokens_ratio=mine[1] / other[1],
        vllm_tokens_per_second=served and served[1],
        vllm_mean_length=served and served[2],
        vllm_ratio=served and mine[1] / served[1],
    )


def _vllm(
    folder: Path,
    engine: Engine,
    prompts: Sequence[str],
    group: int,
    settings: SamplingSettings,
    rounds: int,
) -> tuple[float, float, float] | None:
    """Rates of a vLLM server; its start does not count. None where vLLM is not installed."""
    try:
        vllm_python()
    except VllmError:
        return None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    seen = []
    with vllm_server(folder, engine) as place:
        sampler = EndpointSampler(
            place, tokenizer, Endpoint(concurrency=len(prompts)), stop_ids_of(folder, tokenizer)
        )
        for turn in range(rounds + 1):
            requests = [
                SampleRequest(prompt, group, stream_seed(f"bench/{turn}/{place}"))
                for place, prompt in enumerate(prompts)
            ]
            started = time.perf_counter()
            groups = sampler.sample(requests, settings)
            lengths = [len(completion.token_ids) for group in groups for completion in group]
            seen.append((time.perf_counter() - started, lengths))
    return _rates(seen[1:])  # the first warms up


def _rates(rounds: Sequence[tuple[float, list[int]]]) -> tuple[float, float, float]:
    """Completions and tokens per second, and the mean length."""
    return (
        median([len(lengths) / seconds for seconds, lengths in rounds]),
        median([sum(lengths) / seconds for seconds, lengths in rounds]),
        median([sum(lengths) / len(lengths) for _, lengths in rounds]),
    )


@torch.inference_mode()
def _generate(
    model: Any, tokenizer: Any, prompts: list[str], group: int, limit: int, seed: int
) -> list[int]:
    """Lengths of what ``generate`` samples, the end of the sequence included."""
    torch.manual_seed(seed)
    repeated = [prompt for prompt in prompts for _ in range(group)]
    batch = tokenizer(repeated, return_tensors="pt", padding=True, add_special_tokens=False)
    sequences = model.generate(
        input_ids=batch["input_ids"].to(model.device),
        attention_mask=batch["attention_mask"].to(model.device),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=limit,
        pad_token_id=tokenizer.pad_token_id,
    )
    sampled = sequences[:, batch["input_ids"].shape[1] :]
    configured = model.generation_config.eos_token_id
    ends = torch.isin(sampled, torch.tensor(configured if configured is not None else -1))
    first = torch.where(ends.any(1), ends.int().argmax(1) + 1, sampled.shape[1])
    return [int(length) for length in first]
