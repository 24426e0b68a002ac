"""How much disk a pipeline takes, said before it starts rather than when the disk is full.

Weights are float32 at rest. A checkpoint to resume from holds the policy, two moments of the
optimizer and, where it moves, the reference; while one is written, those it will replace are still
there. Rollouts and records are small beside that and not counted.
"""

import math
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from safetensors import SafetensorError, safe_open

from services.config import RL, Recipe
from services.errors import ArtifactError
from services.training.checkpoints import LAST_ONES

_WEIGHTS: Final = 4
"""Bytes of a parameter."""
_MOMENTS: Final = 8
"""Bytes of the optimizer's two moments of it."""


class StageDisk(NamedTuple):
    """What one stage takes, in bytes."""

    stage: str
    kept: int
    """Its result."""
    work: int
    """Beside that while it runs, at most."""


def parameters_of(folder: Path) -> int:
    """Parameters of a model, from the headers of its safetensors; tied weights count once.

    Raises:
        ArtifactError: A file is no safetensors.
    """
    return sum(map(_parameters_in, folder.glob("*.safetensors")))


def _parameters_in(path: Path) -> int:
    try:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(
            f"cannot load a model from {path.parent}: {path.name}: {error}",
            "Name a folder with whole safetensors",
        ) from error


def disk_by_stage(recipe: Recipe, base: int, student: int) -> list[StageDisk]:
    """What every stage that makes weights takes; models are given by their parameters."""
    preference = (
        [StageDisk("preference", 2 * base * _WEIGHTS, 0)] if recipe.problems.general else []
    )
    own = [_sft("on-policy", student)] if recipe.on_policy.steps else []
    return [
        _rl("zero", recipe.zero, base),
        _sft("dev1", base),
        _rl("dev2", recipe.dev2, base),
        _sft("dev3", base),
        *preference,
        _rl("r1", recipe.r1, base),
        _sft("distill", student),
        *own,
        _rl("student-rl", recipe.student_rl, student),
        StageDisk("export", base * _WEIGHTS, 0),
    ]


def forecast(stages: Sequence[StageDisk], done: Collection[str] = ()) -> int:
    """Bytes at the fullest moment, beyond what is there already."""
    fullest = kept = 0
    for stage in stages:
        if stage.stage in done:
            continue
        kept += stage.kept
        fullest = max(fullest, kept + stage.work)
    return fullest


def require_space(home: Path, needed: int) -> None:
    """Refuse to start what cannot end.

    Raises:
        ArtifactError: The disk of the state folder has less room than is needed.
    """
    free = shutil.disk_usage(home).free
    if free < needed:
        raise ArtifactError(
            f"this run will take up to {_size(needed)} below {home}, and {_size(free)} are free",
            "Free some, set R1_HOME to a folder on a larger disk, or keep fewer checkpoints",
        )


def _rl(stage: str, settings: RL, parameters: int) -> StageDisk:
    moves = settings.kl_beta > 0 and settings.reference_sync_steps > 0
    checkpoint = parameters * (_WEIGHTS * (2 if moves else 1) + _MOMENTS)
    guards = settings.guards
    rolls_back = "rollback" in (guards.policy, *guards.policies.values())
    checkpoints = LAST_ONES.last + settings.keep_best + rolls_back + 1
    return StageDisk(
        stage, parameters * _WEIGHTS * (1 + settings.keep_best), checkpoint * checkpoints
    )


def _sft(stage: str, parameters: int) -> StageDisk:
    checkpoint = parameters * (_WEIGHTS + _MOMENTS)
    return StageDisk(stage, parameters * _WEIGHTS, checkpoint * (LAST_ONES.last + 1))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
