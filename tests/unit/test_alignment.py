"""Rows without padding in front: every token keeps its row, its order and its place on return."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from services.training.alignment import Aligned

ROWS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 7)), min_size=1, max_size=5)
"""Tokens of prompt and completion, by row."""


def laid_out(rows: list[tuple[int, int]], spare: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Ids that are 1, 2, 3 … along each row, as TRL pads them; their mask; completion width."""
    prompts = max(prompt for prompt, _ in rows) + spare
    completions = max(1, *(completion for _, completion in rows)) + spare
    ids = torch.zeros(len(rows), prompts + completions, dtype=torch.int64)
    for row, (prompt, completion) in enumerate(rows):
        ids[row, prompts - prompt : prompts + completion] = torch.arange(prompt + completion) + 1
    return ids, (ids > 0).long(), completions


@given(ROWS, st.integers(0, 2))
def test_tokens_move_to_the_left_and_come_back(rows: list[tuple[int, int]], spare: int) -> None:
    ids, mask, completions = laid_out(rows, spare)
    aligned = Aligned(mask, completions)
    moved = aligned.take(ids)
    assert moved.shape == (len(rows), aligned.width)
    assert aligned.width == max(prompt + max(1, completion) for prompt, completion in rows)
    for row, (prompt, completion) in enumerate(rows):
        expected = list(range(1, prompt + completion + 1))
        assert moved[row].tolist() == expected + [0] * (aligned.width - len(expected))
    kept = moved[:, -aligned.kept :]
    tokens = mask[:, -completions:]
    assert torch.equal(aligned.back(kept) * tokens, ids[:, -completions:])
