"""Settings of this process that decide speed and repeatability: threads, allocator, device."""

import ctypes
import os
import sys

import datasets
import torch
import transformers
from transformers.trainer_callback import PrinterCallback

from services.config import Engine
from services.errors import RecipeError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def prepare_machine(engine: Engine) -> None:
    """Fix the thread count and keep freed memory, once per process.

    Small models allocate and free the same few megabytes thousands of times a second; glibc would
    hand them back to the system each time and fault them in anew (a quarter of the time of a
    training step).
    """
    torch.set_num_threads(engine.threads or os.cpu_count() or 1)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def silence(trainer: transformers.Trainer) -> None:
    """Take away the trainer's own printing: progress is shown by whoever runs the stage."""
    trainer.remove_callback(PrinterCallback)


def device_of(engine: Engine) -> torch.device:
    """The device to train and sample on; each process of a host has a GPU of its own."""
    kind = engine.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and "LOCAL_RANK" in os.environ:
        return torch.device(kind, int(os.environ["LOCAL_RANK"]))
    return torch.device(kind)


def where_to_load(engine: Engine) -> torch.device:
    """The device to load weights on: the one to train on, unless no single one could hold them.

    Launched with FSDP or DeepSpeed, accelerate moves each process's part to its GPU.
    """
    spread = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    if any(os.environ.get(name) == "true" for name in spread):
        return torch.device("cpu")
    return device_of(engine)


def uses_bfloat16(engine: Engine) -> bool:
    """Whether training's matrix products are in bfloat16.

    Raises:
        RecipeError: They should be, and the device has none.
    """
    on_gpu = device_of(engine).type == "cuda"
    able = torch.cuda.is_bf16_supported() if on_gpu else True
    if engine.precision == "bfloat16" and not able:
        raise RecipeError(
            "engine.precision is bfloat16, and this GPU has none",
            "Train with --set engine.precision=float32",
        )
    return engine.precision == "bfloat16" or (engine.precision == "auto" and on_gpu and able)
