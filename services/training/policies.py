"""Policies on disk: loadable Hugging Face folders of safetensors, in float32 in memory."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from services.config_adapters import Adapter
from services.errors import ArtifactError
from services.training.adapters import quantisation


def load_policy(folder: Path, device: torch.device, adapter: Adapter | None = None) -> Any:
    """A checkpoint in float32 on its device; weights come from safetensors only.

    Args:
        folder: A Hugging Face folder.
        device: Where the weights go.
        adapter: Says whether they are held in 4 bit, beneath adapters; by default they are not.

    Raises:
        ArtifactError: The folder is no loadable checkpoint.
        RecipeError: 4-bit weights are asked for where there can be none.
    """
    in_4_bit = quantisation(adapter) if adapter else None
    how = {"quantization_config": in_4_bit, "device_map": {"": device}} if in_4_bit else {}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, **how
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ArtifactError(
            f"cannot load a model from {folder}: {str(error).strip().splitlines()[0]}",
            "Delete the folder and run its stage again, or name another checkpoint",
        ) from error
    return model if in_4_bit else model.to(device)


def save_policy(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a loadable Hugging Face folder: safetensors, configuration, tokenizer."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
