"""A random stream for every sequence, addressed by (seed, sample, position).

Counter-based (SplitMix64, Steele et al. 2014): the number at a position is a hash of its address.
So a sequence draws the same numbers whichever neighbours share its batch or finish before it, and a
resumed run needs no generator state.
"""

import hashlib

import torch

GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit pattern as the signed integer that torch stores it in."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift; torch's is arithmetic."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def stream_keys(seeds: list[int], samples: list[int]) -> torch.Tensor:
    """One 64-bit key per sequence from its request's seed and its number, shape ``(rows,)``."""
    seed = torch.tensor([_signed(s) for s in seeds], dtype=torch.int64)
    sample = torch.tensor(samples, dtype=torch.int64)
    return _mix(_mix(seed + _signed(GOLDEN)) + (sample + 1) * _signed(GOLDEN))


def uniforms(keys: torch.Tensor, position: int) -> torch.Tensor:
    """Uniform numbers in [0, 1) with 53 bits, float64, shape ``(rows,)``."""
    mixed = _mix(keys + _signed(GOLDEN * (position + 1)))
    return _shift(mixed, 11).to(torch.float64) * 2.0**-53


def stream_seed(name: str) -> int:
    """A 64-bit seed from the name of a random stream."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
