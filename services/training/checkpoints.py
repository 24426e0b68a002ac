"""Resumable state of a training stage: complete, and visible only when complete.

The trainer writes a folder of its own (policy, optimizer, scheduler, random states, position in the
data); this module adds what it leaves out (the reference model if it has moved, rollouts that are
not used up, what the guards remember) and then the marker file that says the folder is whole. A
folder without a marker is what ``kill -9`` left. What is kept: the last ones, the best by held-out
accuracy, one to roll back to, and every folder in which somebody has put a file named ``pinned``.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from services.artifacts import write_atomically
from services.errors import ArtifactError
from services.training.processes import Processes

MARKER = "complete"
REFERENCE = "reference.safetensors"
PINNED = "pinned"
MEMORY = "memory.json"
ROLLBACKS = "rollbacks.json"
_NOT_OF_THE_POLICY = {MARKER, REFERENCE, PINNED, MEMORY, "trainer_state.json", "README.md"}


class Whole(NamedTuple):
    """A whole checkpoint and what is known of it."""

    step: int
    quiet: bool
    """No guard was tripped when it was written."""
    held_out: float | None
    """Held-out accuracy at its step, where that was measured."""
    pinned: bool


@dataclass(frozen=True, slots=True)
class Retention:
    """Which checkpoints stay."""

    last: int = 2
    best: int = 0
    """So many with the best held-out accuracy; the earlier of equals."""
    way_back: int | None = None
    """Keep the newest quiet one that is at least so many steps old, to roll back to."""


LAST_ONES = Retention()


@dataclass(slots=True)
class Memory:
    """What a trainer knows beyond its weights, optimizer and random states."""

    facts: dict[str, Any] = field(default_factory=dict)
    """JSON-able: state of the guards, metrics of the rollouts in use."""
    rollouts: Sequence[Mapping[str, torch.Tensor]] = ()
    """Parts of a generation that later steps still train on."""
    quiet: bool = True
    held_out: float | None = None


class Remembers(Protocol):
    """A trainer with more to save than its parent class knows."""

    def memory(self) -> Memory:
        """What must be in a checkpoint."""
        ...

    def remember(self, memory: Memory) -> None:
        """Go on from what was in a checkpoint."""
        ...


def latest_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint below ``work``; torn ones are removed on the way."""
    whole = []
    for folder in work.glob("checkpoint-*"):
        if (folder / MARKER).exists():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=step_of, default=None)


def steps_done(work: Path) -> int:
    """The step after which training will go on; 0 from the start."""
    checkpoint = latest_checkpoint(work)
    return step_of(checkpoint) if checkpoint else 0


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that a checkpoint has behind it."""
    return int(checkpoint.name.rpartition("-")[2])


def whole_checkpoints(work: Path) -> list[Whole]:
    """All whole checkpoints, oldest first."""
    found = []
    for marker in work.glob(f"checkpoint-*/{MARKER}"):
        facts = json.loads(marker.read_text(encoding="utf-8"))
        pinned = (marker.parent / PINNED).exists()
        step = step_of(marker.parent)
        found.append(Whole(step, facts["quiet"], facts["held_out"], pinned))
    return sorted(found)


def best_of(checkpoints: Sequence[Whole], count: int) -> list[Whole]:
    """The best by held-out accuracy, best first; the earlier of equals."""
    measured = [c for c in checkpoints if c.held_out is not None]
    return sorted(measured, key=lambda c: (-(c.held_out or 0.0), c.step))[:count]


def way_back(checkpoints: Sequence[Whole], step: int) -> int:
    """The newest quiet checkpoint up to a step; 0 is the start of the stage."""
    return max((c.step for c in checkpoints if c.quiet and c.step <= step), default=0)


def kept(checkpoints: Sequence[Whole], retention: Retention) -> set[int]:
    """Steps of the checkpoints that stay."""
    steps = {c.step for c in checkpoints[-retention.last :]}
    steps |= {c.step for c in best_of(checkpoints, retention.best)}
    steps |= {c.step for c in checkpoints if c.pinned}
    if retention.way_back is not None and checkpoints:
        steps.add(way_back(checkpoints, checkpoints[-1].step - retention.way_back))
    return steps


def roll_back(work: Path, to: int, facts: Mapping[str, Any]) -> None:
    """Forget every checkpoint after a step, pinned ones too, and note why."""
    for folder in work.glob("checkpoint-*"):
        if step_of(folder) > to:
            shutil.rmtree(folder)
    write_atomically(work / ROLLBACKS, json.dumps([*rollbacks(work), {"to": to, **facts}]))


def rollbacks(work: Path) -> list[dict[str, Any]]:
    """What was rolled back so far, oldest first."""
    path = work / ROLLBACKS
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def copy_policy(checkpoint: Path, target: Path) -> None:
    """Only the model of a checkpoint: a loadable folder of safetensors, without training state."""
    target.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if path.suffix in {".safetensors", ".json", ".txt", ".model", ".jinja"} and not (
            path.name in _NOT_OF_THE_POLICY or path.name.startswith("rollouts-")
        ):
            shutil.copy2(path, target / path.name)


class CompleteCheckpoints(TrainerCallback):
    """Finishes every checkpoint of a trainer and removes those that need not stay."""

    def __init__(
        self,
        reference: torch.nn.Module | None = None,
        trainer: Remembers | None = None,
        processes: Processes | None = None,
        retention: Retention = LAST_ONES,
    ) -> None:
        self.reference = reference
        self.trainer = trainer
        self.processes = processes
        self.retention = retention

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add what is missing, then the marker; then remove what need not stay."""
        work = Path(str(args.output_dir))
        folder = work / f"checkpoint-{state.global_step}"
        memory = self.trainer.memory() if self.trainer else Memory()
        if memory.rollouts:
            tensors = {
                f"{place}/{name}": tensor.clone()
                for place, part in enumerate(memory.rollouts)
                for name, tensor in part.items()
            }
            save_file(tensors, folder / self._rollouts_file())
        if self.processes:
            self.processes.wait()  # each writes its own part
        if self.processes and not self.processes.is_main:
            return
        if self.reference is not None:
            save_model(self.reference, str(folder / REFERENCE))
        write_atomically(folder / MEMORY, json.dumps(memory.facts))
        facts = {"step": state.global_step, "quiet": memory.quiet, "held_out": memory.held_out}
        write_atomically(folder / MARKER, json.dumps(facts))
        checkpoints = whole_checkpoints(work)
        keep = kept(checkpoints, self.retention)
        for checkpoint in checkpoints:
            if checkpoint.step not in keep:
                shutil.rmtree(work / f"checkpoint-{checkpoint.step}")

    def restore(self, checkpoint: Path) -> None:
        """Give back what ``on_save`` added.

        Raises:
            ArtifactError: Rollouts in use were written by another number of processes.
        """
        if self.reference is not None:
            load_model(self.reference, str(checkpoint / REFERENCE))
        if self.trainer is None:
            return
        facts = json.loads((checkpoint / MEMORY).read_text(encoding="utf-8"))
        parts: list[dict[str, torch.Tensor]] = []
        count = len(list(checkpoint.glob("rollouts-*.safetensors")))
        if count and count != (self.processes.count if self.processes else 1):
            raise ArtifactError(
                f"{checkpoint} holds rollouts of {count} processes", f"Launch {count} processes"
            )
        if count:
            for key, tensor in sorted(load_file(checkpoint / self._rollouts_file()).items()):
                place, _, name = key.partition("/")
                parts += [{} for _ in range(int(place) + 1 - len(parts))]
                parts[int(place)][name] = tensor
        self.trainer.remember(Memory(facts, parts))

    def _rollouts_file(self) -> str:
        return f"rollouts-{self.processes.index if self.processes else 0}.safetensors"
