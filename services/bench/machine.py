"""What this machine can do at most, and what a pass of a model costs; for shares of the peak."""

import resource
import statistics
import time
from typing import Any

import torch


def peak_flops(size: int = 1024, rounds: int = 7) -> float:
    """Measured float32 matmul rate in FLOP/s: the best of several rounds of square matrices."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(8):
            left @ right
        best = max(best, 8 * 2 * size**3 / (time.perf_counter() - started))
    return best


def training_flops(config: Any, lengths: list[int]) -> float:
    """FLOPs of one forward and backward pass over sequences, padding not counted.

    Six for each weight of a matrix and token (PaLM, 2204.02311, appendix B); causal attention adds
    6 · layers · width · length² for each sequence. The embedding is a look-up and costs nothing,
    the output head is a matrix and does.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    keys = config.num_key_value_heads * config.head_dim
    attention = width * config.num_attention_heads * config.head_dim * 2 + 2 * width * keys
    weights: int = layers * (attention + 3 * width * config.intermediate_size)
    weights += width * config.vocab_size
    tokens = sum(lengths)
    return 6.0 * weights * tokens + 6.0 * float(layers * width) * sum(n * n for n in lengths)


def peak_mib() -> float:
    """Most memory this process has had resident, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median(values: list[float]) -> float:
    """The median; slow outliers of a shared machine do not move it."""
    return statistics.median(values)
