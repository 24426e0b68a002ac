"""Policies on disk: loadable Hugging Face folders of safetensors, in float32 in memory."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from services.errors import ArtifactError


def load_policy(folder: Path, device: torch.device) -> Any:
    """A checkpoint in float32 on its device; weights come from safetensors only.

    Raises:
        ArtifactError: The folder is no loadable checkpoint.
    """
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ArtifactError(
            f"cannot load a model from {folder}: {str(error).strip().splitlines()[0]}",
            "Delete the folder and run its stage again, or name another checkpoint",
        ) from error
    return model.to(device)


def save_policy(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a loadable Hugging Face folder: safetensors, configuration, tokenizer."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
