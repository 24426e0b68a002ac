"""The lean pass: one batch as micro-batches of like length, trimmed, without idle rows.

Stock training pads every row to the longest of the batch. Here rows are sorted by length and cut
into micro-batches of a token budget, each trimmed to its own longest row; rows that cannot move the
policy (advantage 0 without a KL term) are left out. Every micro-batch comes with the weight that
makes the weighted losses add up to the loss of the whole batch, so the gradient is the plain one.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

ROWWISE = (
    "completion_ids",
    "completion_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
)
"""Tensors of a GRPO batch with one column per completion token."""


class MicroBatch(NamedTuple):
    """Part of a batch and the weight of its loss."""

    inputs: dict[str, torch.Tensor]
    weight: float
    tokens: int


def micro_batches(
    batch: Mapping[str, torch.Tensor],
    *,
    estimator: str,
    token_budget: int,
    skip_idle: bool,
    all_tokens: float,
) -> Iterator[MicroBatch]:
    """Cut a GRPO batch as TRL prepares it.

    Args:
        batch: Left-padded prompts, right-padded completions, ``advantages``,
            ``num_items_in_batch``.
        estimator: TRL's ``loss_type``; decides the weights.
        token_budget: Most padded tokens in a micro-batch; one row may exceed it.
        skip_idle: Leave out rows with advantage 0 (only right if there is no KL term).
        all_tokens: Completion tokens of the batch; with several processes, their mean.
    """
    prompt_lengths = batch["prompt_mask"].sum(1)
    completion_lengths = batch["completion_mask"].sum(1)
    rows = torch.arange(len(prompt_lengths))
    if skip_idle:
        rows = rows[batch["advantages"] != 0]
    order = rows[(prompt_lengths + completion_lengths)[rows].argsort(stable=True)]
    for chosen in _pack(order, prompt_lengths, completion_lengths, token_budget):
        tokens = int(completion_lengths[chosen].sum())
        if estimator in ("dapo", "cispo", "vespo"):
            weight = 1.0  # TRL divides by the tokens of the whole batch
        elif estimator == "bnpo":
            weight = tokens / all_tokens
        else:
            weight = len(chosen) / len(prompt_lengths)
        trimmed = _trim(batch, chosen, int(prompt_lengths[chosen].max()))
        yield MicroBatch(trimmed, weight, tokens)


def idle_batch(batch: Mapping[str, torch.Tensor]) -> MicroBatch:
    """One row without completion tokens: a pass whose gradient is zero."""
    row = {name: batch[name][:1, :1] for name in ROWWISE if name in batch}
    row["completion_mask"] = torch.zeros_like(row["completion_mask"])
    row |= {name: batch[name][:1] for name in ("prompt_ids", "prompt_mask", "advantages")}
    return MicroBatch({**row, "num_items_in_batch": batch["num_items_in_batch"]}, 0.0, 0)


def _pack(
    order: torch.Tensor, prompts: torch.Tensor, completions: torch.Tensor, budget: int
) -> Iterator[torch.Tensor]:
    """Rows in order of length, as many at a time as their padding allows."""
    start, width = 0, 0
    for place, row in enumerate(order.tolist()):
        wider = max(width, int(prompts[row] + completions[row]))
        if place > start and wider * (place - start + 1) > budget:
            yield order[start:place]
            start, wider = place, int(prompts[row] + completions[row])
        width = wider
    if start < len(order):
        yield order[start:]


def _trim(
    batch: Mapping[str, torch.Tensor], rows: torch.Tensor, prompt_width: int
) -> dict[str, torch.Tensor]:
    width = int(batch["completion_mask"][rows].sum(1).max())
    trimmed = {
        "prompt_ids": batch["prompt_ids"][rows, -prompt_width:],
        "prompt_mask": batch["prompt_mask"][rows, -prompt_width:],
        "advantages": batch["advantages"][rows],
        "num_items_in_batch": batch["num_items_in_batch"],
    }
    trimmed |= {name: batch[name][rows, :width] for name in ROWWISE if name in batch}
    if "kinds" in batch:
        trimmed["kinds"] = batch["kinds"][rows]
    return trimmed
