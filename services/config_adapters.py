"""The parts of a recipe about adapters, and about teaching a student on its own samples."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from services.config_base import Count, Natural, Positive, Settings, Share


class Adapter(Settings):
    """Low-rank adapters (LoRA) in place of training all weights; off by default."""

    rank: Natural = 0
    """Rank of the adapters; 0 trains all weights and none of the rest applies."""
    alpha: Positive = 32.0
    """Adapters count alpha / rank times."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ("all-linear",)
    """Names of layers that get one, such as ``q_proj``; ``all-linear``: all but the output. Routed
    experts and routers are no linear layers and stay as they are."""
    quantise: Literal["no", "4bit"] = "no"
    """``4bit`` holds the frozen weights in NF4 (QLoRA); needs an NVIDIA GPU and bitsandbytes."""

    @model_validator(mode="after")
    def _frozen_weights_are_quantised(self) -> "Adapter":
        if self.quantise != "no" and not self.rank:
            raise ValueError("quantise needs a rank: weights in 4 bit cannot be trained themselves")
        return self


class OnPolicy(Settings):
    """Distillation on the student's own samples (2306.13649); the paper has none of it."""

    steps: Natural = 0
    """Optimizer steps; 0 leaves the stage out."""
    prompts_per_step: Count = 64
    """Questions in a step, one completion each."""
    learning_rate: Positive = 5e-6
    """Constant."""
    divergence: Share = 1.0
    """0: forward KL, teacher to student; 1: reverse KL; between: generalised Jensen–Shannon."""
    temperature: Positive = 1.0
    """Of the samples and of both distributions."""
    max_new_tokens: Count = 32_768
    """Longest completion."""
    max_grad_norm: Positive = 1.0
    """Gradient clipping."""
    general_share: Share = 0.0
    """Share of questions that are general prompts."""
    save_every: Count = 10
    """Steps between resumable checkpoints."""
    lora: Adapter = Adapter()
    """Adapters in place of all weights."""
