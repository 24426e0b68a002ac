"""The small mixture of experts: DeepSeek-V3's architecture in the small world (2412.19437).

Latent attention (MLA: queries and key–values pass through low-rank latents, positions through a few
rotary dimensions of their own), one dense layer, then layers with a shared and several routed
experts chosen by sigmoid scores. V3 balances its experts without an auxiliary loss: a bias that
only the choice sees is moved after each step. ``transformers`` has that bias but never moves it, so
pretraining moves it here. Left out, as in ``transformers``' training: multi-token prediction, the
small sequence-wise balance loss, and the limit on nodes (there is one group of experts).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from transformers import DeepseekV3Config, PreTrainedTokenizerFast

from services.training.experts import ExpertWatch

BIAS_SPEED = 1e-3
"""By how much a step moves the bias of an expert (V3: 0.001 until the last part)."""


class MoEShape(NamedTuple):
    """Size of a small DeepSeek-V3."""

    layers: int
    width: int
    heads: int
    intermediate: int
    """Of the dense layers, which come first."""
    dense_layers: int
    experts: int
    chosen: int
    """Routed experts of a token."""
    expert_intermediate: int
    """Of each expert; the shared one has the same."""
    query_rank: int
    key_value_rank: int
    plain_dims: int
    """Of a query and key without position."""
    rotary_dims: int
    value_dims: int

    def __str__(self) -> str:
        return (
            f"{self.layers}-layer DeepSeek-V3 of width {self.width} with {self.experts} routed "
            f"experts, {self.chosen} of them and a shared one at a time"
        )


def moe_config(
    shape: MoEShape, tokenizer: PreTrainedTokenizerFast, positions: int
) -> DeepseekV3Config:
    """The configuration of a model of this shape for the small world's vocabulary."""
    return DeepseekV3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        moe_intermediate_size=shape.expert_intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        n_shared_experts=1,
        n_routed_experts=shape.experts,
        num_experts_per_tok=shape.chosen,
        first_k_dense_replace=shape.dense_layers,
        n_group=1,
        topk_group=1,
        routed_scaling_factor=1.0,
        norm_topk_prob=True,
        q_lora_rank=shape.query_rank,
        kv_lora_rank=shape.key_value_rank,
        qk_nope_head_dim=shape.plain_dims,
        qk_rope_head_dim=shape.rotary_dims,
        v_head_dim=shape.value_dims,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        initializer_range=0.05,
        num_mtp_layers=0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class Balance:
    """Aux-loss-free load balancing; does nothing for a model without routers."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._watch = ExpertWatch(model, ["corpus"])

    @contextmanager
    def counting(self, counted: torch.Tensor) -> Iterator[None]:
        """Count the choices of passes inside the block at these positions, ``(rows, width)``."""
        with self._watch.watching(counted, torch.zeros(len(counted), dtype=torch.int64)):
            yield

    @torch.no_grad()
    def step(self) -> None:
        """Make overloaded experts less likely and idle ones more, each by the same little."""
        loads = self._watch.loads()
        if loads is None:
            return
        for router, load in zip(self._watch.routers, loads, strict=True):
            bias = router.get_buffer("e_score_correction_bias")
            bias += BIAS_SPEED * torch.sign(load.mean() - load).to(bias)
        self._watch.take()
