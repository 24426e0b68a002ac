"""What a pass of a model costs in arithmetic, and which share of a GPU's peak it reaches (MFU)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

PEAKS: Final = (
    (r"B200", 2.25e15),
    (r"H100 PCIe", 7.56e14),
    (r"H[128]00|GH200", 9.89e14),
    (r"H20\b", 1.48e14),
    (r"L40S", 3.62e14),
    (r"A[18]00", 3.12e14),
    (r"RTX 4090", 1.65e14),
    (r"L4\b", 1.21e14),
    (r"RTX 3090", 7.1e13),
)
"""Dense bfloat16 FLOP/s by NVIDIA's data sheets, by what the driver calls the card."""


def peak_of(card: str) -> float | None:
    """The bfloat16 peak of a GPU in FLOP/s; None if its name is not known."""
    return next((peak for name, peak in PEAKS if re.search(name, card)), None)


def matrix_weights(config: Any) -> int:
    """Weights of matrices that one token passes through; of routed experts only those chosen.

    The embedding is a look-up and costs nothing, the output head is a matrix and does.
    """
    width: int = config.hidden_size
    layers: int = config.num_hidden_layers
    heads: int = config.num_attention_heads
    if getattr(config, "kv_lora_rank", None):  # multi-head latent attention
        query = config.qk_nope_head_dim + config.qk_rope_head_dim
        low = config.q_lora_rank
        asked = low * (width + heads * query) if low else width * heads * query
        kept = width * (config.kv_lora_rank + config.qk_rope_head_dim)
        unpacked = config.kv_lora_rank * heads * (config.qk_nope_head_dim + config.v_head_dim)
        attention = asked + kept + unpacked + heads * config.v_head_dim * width
    else:
        head = getattr(config, "head_dim", None) or width // heads
        attention = 2 * width * heads * head + 2 * width * config.num_key_value_heads * head
    dense: int = 3 * width * config.intermediate_size
    weights: int = layers * attention + width * config.vocab_size
    if not getattr(config, "num_experts_per_tok", None):
        return weights + layers * dense
    first: int = getattr(config, "first_k_dense_replace", 0)
    chosen: int = config.num_experts_per_tok + (getattr(config, "n_shared_experts", None) or 0)
    experts: int = chosen * 3 * width * config.moe_intermediate_size
    return weights + first * dense + (layers - first) * experts


def training_flops(config: Any, lengths: Sequence[int]) -> float:
    """FLOPs of one forward and backward pass over sequences, padding not counted.

    Six for each weight of a matrix and token (PaLM, 2204.02311, appendix B); causal attention adds
    6 · layers · width · length² for each sequence.
    """
    attention: float = 6.0 * config.num_hidden_layers * config.hidden_size
    return 6.0 * matrix_weights(config) * sum(lengths) + attention * sum(n * n for n in lengths)


class FlopMeter:
    """Adds up a step's passes on one device and says which share of its peak they reached.

    Args:
        config: Of the model.
        device: The device; what is no NVIDIA GPU of a known kind is not measured.
        peak: FLOP/s in place of the card's.
    """

    def __init__(self, config: Any, device: torch.device, peak: float | None = None) -> None:
        if peak is None and device.type == "cuda":
            peak = peak_of(torch.cuda.get_device_name(device))
        self._config = config
        self._peak = peak
        self._flops = 0.0

    def add(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """One micro-batch went forward and backward."""
        if self._peak is not None:
            lengths = inputs["prompt_mask"].sum(1) + inputs["completion_mask"].sum(1)
            self._flops += training_flops(self._config, lengths.tolist())

    def share(self, seconds: float) -> dict[str, float]:
        """``training/mfu``: FLOP/s over the peak; empty where there is no peak to compare with."""
        if self._peak is None:
            return {}
        return {"training/mfu": self._flops / seconds / self._peak}
