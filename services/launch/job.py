"""Jobs as files: what a stage would hand to training, for another process to pick up."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from services.artifacts import write_atomically
from services.config_engine import Engine
from services.judging import ScoreGroups, score_function
from services.training.job import RLJob
from services.training.preference import load_preference_models
from services.training.sft import SFTJob


@dataclass(frozen=True, slots=True)
class LaunchedRL:
    """A reinforcement-learning stage and what its reward needs beyond its settings."""

    job: RLJob
    preference: Path | None = None
    """Folder of the preference models, where they take part."""
    kind: Literal["rl"] = "rl"


@dataclass(frozen=True, slots=True)
class LaunchedSFT:
    """A supervised stage."""

    job: SFTJob
    save_every: int
    kind: Literal["sft"] = "sft"


Launched = LaunchedRL | LaunchedSFT


@contextmanager
def reward_of(stage: LaunchedRL) -> Iterator[ScoreGroups]:
    """The reward of a stage, in whichever process it is trained."""
    job, settings = stage.job, stage.job.settings
    with score_function(
        settings.weights,
        load_preference_models(stage.preference, job.engine) if stage.preference else None,
        shaping=settings.shaping,
        target_language=settings.target_language,
        form=job.form,
    ) as score:
        yield score


_ADAPTER: TypeAdapter[Launched] = TypeAdapter(Annotated[Launched, Field(discriminator="kind")])


def write_job(path: Path, launched: Launched) -> None:
    """Write a job file, whole or not at all."""
    write_atomically(path, _ADAPTER.dump_json(launched).decode())


def read_job(path: Path) -> Launched:
    """Read a job file back; equal to what was written."""
    return _ADAPTER.validate_json(path.read_bytes())


def engine_of(launched: Launched) -> Engine:
    """Where and how a job runs."""
    return launched.job.engine
