"""What a training pass measures beside its loss, for every estimator under the same names."""

from collections.abc import Iterator, Mapping

import torch

from services.config import RL

CALLED = {
    "kl": "kl",
    "entropy": "entropy",
    "clip_ratio/region_mean": "clip/share",
    "cispo_clip_ratio": "clip/share",
    "mismatch/kl": "mismatch/kl",
    "mismatch/mean_abs": "mismatch/mean_abs",
    "clip/outside": "clip/share",
}
"""Names of what is measured in the loss, TRL's and ours, and what they are called in the store."""


def compared(
    logps: torch.Tensor, inputs: Mapping[str, torch.Tensor], rl: RL, *, fresh: bool
) -> dict[str, torch.Tensor]:
    """Sums over the tokens of a micro-batch; empty if there is nothing to compare.

    Sampler against trainer: k3 of KL(sampler ‖ trainer), whose samples are the sampler's, and mean
    absolute difference. Share of probability ratios outside the clip range, for the estimators
    that do not clip.

    Args:
        logps: The trainer's log-probabilities, ``(rows, tokens)``.
        inputs: The micro-batch.
        rl: Settings of the stage.
        fresh: The policy is still the one that sampled.
    """
    mask = inputs["completion_mask"].bool()
    found = {}
    if fresh and "sampling_per_token_logps" in inputs:
        ratio = (logps - inputs["sampling_per_token_logps"])[mask]
        found["mismatch/kl"] = (ratio.exp() - 1 - ratio).sum()
        found["mismatch/mean_abs"] = ratio.abs().sum()
    if rl.estimator in ("sapo", "vespo"):
        ratio = (logps - inputs.get("old_per_token_logps", logps))[mask].exp()
        high = rl.clip_epsilon_high or rl.clip_epsilon
        outside = (ratio < 1 - rl.clip_epsilon) | (ratio > 1 + high)
        found["clip/outside"] = outside.float().sum()
    return found


class PassMeans:
    """Means of what micro-batches measured, weighted by their tokens."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    @property
    def tokens(self) -> int:
        """Tokens of all micro-batches."""
        return max(self._counts.values(), default=0)

    def add(self, name: str, value: float, tokens: int) -> None:
        """One number of one micro-batch; what has no tokens has no say."""
        if tokens:
            self._sums[name] = self._sums.get(name, 0.0) + value * tokens
            self._counts[name] = self._counts.get(name, 0) + tokens

    def means(self) -> Iterator[tuple[str, float]]:
        """Name in the store and mean."""
        for name, total in self._sums.items():
            if name in CALLED:
                yield CALLED[name], total / self._counts[name]
