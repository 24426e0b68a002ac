"""Resumable state of a training stage: complete, and visible only when complete.

The trainer writes a folder of its own (policy, optimizer, scheduler, random states, position in the
data); this module adds what it leaves out (the reference model, if it has moved) and then the
marker file that says the folder is whole. A folder without a marker is what ``kill -9`` left.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from services.artifacts import write_atomically

MARKER = "complete"
REFERENCE = "reference.safetensors"


def latest_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint below ``work``; torn ones are removed on the way."""
    whole = []
    for folder in work.glob("checkpoint-*"):
        if (folder / MARKER).exists():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint has behind it."""
    return int(checkpoint.name.rpartition("-")[2])


class CompleteCheckpoints(TrainerCallback):
    """Finishes every checkpoint of a trainer, with the reference model where there is one."""

    def __init__(self, reference: torch.nn.Module | None = None) -> None:
        self.reference = reference

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the reference, then the marker."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self.reference is not None:
            save_model(self.reference, str(folder / REFERENCE))
        write_atomically(folder / MARKER, str(state.global_step))

    def restore(self, checkpoint: Path) -> None:
        """Give the reference model back its weights."""
        if self.reference is not None:
            load_model(self.reference, str(checkpoint / REFERENCE))
