"""A key–value cache for decoding groups: prompts once, rows leave when they are done.

``transformers`` offers a cache that grows by concatenation (a copy of everything at every token)
and one of fixed size (attention over positions nobody wrote). This one writes in place into room
taken in blocks and can repeat its rows, once, and drop them, often.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK = 64
"""Positions by which a full layer grows."""


class GroupLayer(CacheLayerMixin):
    """Keys and values of one layer, ``(rows, heads, room, head_dim)``, of which ``used`` count."""

    is_sliding = False
    is_compileable = False

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Take the first block of room."""
        self.keys = self._room(key_states, BLOCK)
        self.values = self._room(value_states, BLOCK)
        self.is_initialized = True

    @staticmethod
    def _room(states: torch.Tensor, positions: int) -> torch.Tensor:
        rows, heads, _, dim = states.shape
        return states.new_empty(rows, heads, positions, dim)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append positions and return views of all that are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        needed = self.used + key_states.shape[2]
        if needed > self.keys.shape[2]:
            self._grow(-(-needed // BLOCK) * BLOCK)
        self.keys[:, :, self.used : needed] = key_states
        self.values[:, :, self.used : needed] = value_states
        self.used = needed
        return self.keys[:, :, :needed], self.values[:, :, :needed]

    def _grow(self, positions: int) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = self._room(old, positions)
            new[:, :, : self.used] = old[:, :, : self.used]
            setattr(self, name, new)

    def select(self, rows: torch.Tensor) -> None:
        """Keep, repeat or reorder rows; ``rows`` holds old row numbers."""
        self.keys = self.keys[:, :, : self.used].index_select(0, rows)
        self.values = self.values[:, :, : self.used].index_select(0, rows)
        self._grow(-(-(self.used + 1) // BLOCK) * BLOCK)

    def get_seq_length(self) -> int:
        """Positions in use."""
        return self.used

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the mask that fits the next update."""
        return self.used + query_length, 0

    def get_max_length(self) -> int:
        """No limit: -1 by the library's convention."""
        return -1


class GroupCache(Cache):
    """The layers of one model."""

    def __init__(self, layers: int) -> None:
        self.group_layers = [GroupLayer() for _ in range(layers)]
        super().__init__(layers=list(self.group_layers))

    def select(self, rows: torch.Tensor) -> None:
        """Keep, repeat or reorder the rows of every layer."""
        for layer in self.group_layers:
            layer.select(rows)
