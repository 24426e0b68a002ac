"""Rows of a batch moved to the left, so that all padding lies behind their tokens.

TRL pads prompts on the left and completions on the right, and a model has to be told in a mask what
to pass over. In a causal model no token sees what is behind it: with padding there alone, nothing
has to be passed over, kernels skip the half of the scores that causality forbids, and rows are as
wide as their tokens instead of the longest prompt and the longest completion together.
"""

from collections.abc import Callable
from typing import Any

import torch


class Aligned:
    """Where the tokens of rows are after they were moved.

    Args:
        mask: Of the rows as TRL lays them out, ``(rows, prompt + completion)``; the tokens of a row
            are next to each other.
        completion_width: Columns that belong to completions, the last ones.
    """

    def __init__(self, mask: torch.Tensor, completion_width: int) -> None:
        before = (mask.cumsum(1) == 0).sum(1)
        self._starts = mask.shape[1] - completion_width - before
        """Prompt tokens of each row."""
        self.width = int(torch.maximum(mask.sum(1), self._starts + 1).max())
        """Columns after the move."""
        self.kept = self.width - int(self._starts.min())
        """How many of the last columns may hold tokens of completions."""
        columns = before[:, None] + torch.arange(self.width, device=mask.device)
        self._inside = columns < mask.shape[1]
        self._columns = columns.clamp(max=mask.shape[1] - 1)
        self._completion_width = completion_width

    def take(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the old columns in the new ones, ``(rows, width)``; zero behind a row's end."""
        return values.gather(1, self._columns) * self._inside

    def back(self, values: torch.Tensor) -> torch.Tensor:
        """Values ``(rows, kept)`` of the last columns at the completions' old places.

        Where a completion has no token, the value is that of some other place.
        """
        first = self._starts - (self.width - self.kept)
        places = first[:, None] + torch.arange(self._completion_width, device=values.device)
        return values.gather(1, places.clamp(max=self.kept - 1))


def on_aligned_rows(
    compute: Callable[..., Any],
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    logits_to_keep: int,
    *args: Any,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """TRL's log-probabilities and entropies of completions, computed on aligned rows.

    Args:
        compute: TRL's ``_get_per_token_logps_and_entropies``.
        model: A causal language model.
        input_ids: Prompts and completions as TRL lays them out, ``(rows, prompt + completion)``.
        attention_mask: Of the same shape.
        logits_to_keep: Width of the completions.
        args: More for ``compute``.
        kwargs: The same by name.

    Returns:
        What ``compute`` returns; log-probabilities and entropies are 0 where there is no token.
    """
    rows = Aligned(attention_mask, logits_to_keep)
    ids, mask = rows.take(input_ids), rows.take(attention_mask)
    logps, entropies, *more = compute(_without_mask(model), ids, mask, rows.kept, *args, **kwargs)
    tokens = attention_mask[:, -logits_to_keep:]
    return (
        rows.back(logps) * tokens,
        None if entropies is None else rows.back(entropies) * tokens,
        *more,
    )


def _without_mask(model: Any) -> Callable[..., Any]:
    """The model, called without the mask that it is given: it would only hide what lies behind."""

    def call(*, attention_mask: torch.Tensor, **inputs: Any) -> Any:
        return model(**inputs)

    return call
