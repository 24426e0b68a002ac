"""What this machine can do at most."""

import resource
import statistics
import time

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


def peak_mib() -> float:
    """Most memory this process has had resident, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median(values: list[float]) -> float:
    """The median; slow outliers of a shared machine do not move it."""
    return statistics.median(values)
