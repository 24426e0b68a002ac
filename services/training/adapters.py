"""Low-rank adapters (LoRA, 2106.09685; QLoRA, 2305.14314), by peft and TRL's own support for it.

A stage with ``lora.rank`` trains two small matrices beside each weight it names and nothing else;
at its end they are merged, so what it writes is a plain checkpoint like every other. Sampling reads
the model with its adapters in place: merging for it and taking apart again would leave rounding
behind in the frozen weights.
"""

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import LoraConfig, PeftModel

from services.config import Recipe
from services.config_adapters import Adapter
from services.errors import RecipeError


def lora_config(adapter: Adapter) -> LoraConfig | None:
    """The recipe's adapter as peft's settings; None if all weights are trained."""
    if not adapter.rank:
        return None
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type] # an integer only in name
        target_modules=adapter.targets[0] if len(adapter.targets) == 1 else list(adapter.targets),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def plain(model: Any) -> Any:
    """The Hugging Face model itself, with its adapters in its layers where there are some."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def beneath(model: Any) -> AbstractContextManager[Any]:
    """While the block runs a model is what it was before it got adapters: their reference."""
    return model.disable_adapter() if isinstance(model, PeftModel) else nullcontext()


def merged(model: Any, frozen: Callable[[], Any]) -> Any:
    """A trained model as a plain one: each weight is W + (alpha / rank) · B A.

    Args:
        model: What a trainer trained, with or without adapters.
        frozen: Loads the weights that training started from, in full precision; asked only where
            they were held in 4 bit, because rounded weights must not be what is kept.
    """
    if not isinstance(model, PeftModel):
        return model
    if getattr(plain(model), "is_loaded_in_4bit", False):
        weights = {name: value.float() for name, value in adapter_weights(model).items()}
        model = PeftModel(frozen(), model.peft_config["default"])
        missing = set(weights) ^ set(adapter_weights(model))
        assert not missing, missing
        model.load_state_dict(weights, strict=False)
    return model.merge_and_unload()


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    """The trained matrices by name."""
    return {name: value for name, value in model.state_dict().items() if "lora_" in name}


def quantisation(adapter: Adapter) -> Any:
    """How to load the frozen weights: None, or bitsandbytes' 4-bit NormalFloat as in QLoRA.

    Raises:
        RecipeError: There is no NVIDIA GPU, or bitsandbytes is not installed.
    """
    if adapter.quantise == "no":
        return None
    missing = []
    if not torch.cuda.is_available():
        missing.append("an NVIDIA GPU")
    if importlib.util.find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes")
    if missing:
        raise RecipeError(
            f"weights in 4 bit (lora.quantise) need {' and '.join(missing)}, not found here",
            "Leave lora.quantise at no: adapters on full weights train everywhere",
        )
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def require_adapters(recipe: Recipe) -> None:
    """Refuse a recipe that asks for 4-bit weights where they cannot be had, before it starts.

    Raises:
        RecipeError: As ``quantisation`` does.
    """
    for stage in ("zero", "dev1", "dev2", "dev3", "r1", "distill", "on_policy", "student_rl"):
        quantisation(getattr(recipe, stage).lora)
