"""What a retraining takes over from the pipeline of the champion, and what it goes on from.

Three retrainings are cheaper than the whole recipe, and each is warm in its own way:

    dev2     dev2 goes on with reinforcement learning from the champion's dev2; what follows is new
    r1       the last stage goes on from the champion itself; nothing else is trained
    distill  only students are taught anew, on the champion's own data

Stages that are taken over are the champion's files, not copies; the store says whose they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from services import views
from services.artifacts import read_manifest
from services.config import Retrain
from services.errors import ArtifactError
from services.types import CheckpointRef
from services.views.runs import DONE

_BEFORE_DEV2: Final = ("zero", "cold-start", "dev1")
_BEFORE_R1: Final = (*_BEFORE_DEV2, "dev2", "sft-set", "dev3", "preference")
TAKEN_OVER: Final[Mapping[str, frozenset[str]]] = {
    "zero": frozenset(),
    # The student that learns by reinforcement alone is a control and no product.
    "dev2": frozenset({*_BEFORE_DEV2, "student-rl"}),
    "r1": frozenset({*_BEFORE_R1, "distill", "student-rl"}),
    "distill": frozenset({*_BEFORE_R1, "r1"}),
}
"""Stages that a retraining does not run, by the stage it starts from."""


class Inherited(NamedTuple):
    """A finished stage of the champion's pipeline."""

    folder: Path
    key: str
    manifest: Mapping[str, Any]

    def checkpoint(self, stage: str) -> CheckpointRef:
        """As what later stages are made from."""
        digest, parents = str(self.manifest["digest"]), tuple(self.manifest["parents"])
        return CheckpointRef(stage, str(self.folder), digest, parents)


@dataclass(frozen=True, slots=True)
class Inheritance:
    """Stages of the champion's pipeline; there are none outside of a retraining."""

    run: str
    start: str
    stages: Mapping[str, Inherited]

    def taken_over(self, stage: str) -> Inherited | None:
        """The result that stands for running the stage."""
        if not self.run or stage not in TAKEN_OVER[self.start]:
            return None
        return self._require(stage)

    def policy(self, stage: str, usual: CheckpointRef) -> CheckpointRef:
        """What a stage trains on: where a retraining starts, the champion's own result of it."""
        if not self.run or stage != self.start or self.start == "zero":
            return usual
        return self._require(stage).checkpoint(stage)

    def measured(self, checkpoints: Mapping[str, CheckpointRef]) -> dict[str, CheckpointRef]:
        """What is evaluated: what was made here, and the models that it began with."""
        return {
            row: checkpoint
            for row, checkpoint in checkpoints.items()
            if checkpoint.stage not in TAKEN_OVER[self.start]
        }

    def _require(self, stage: str) -> Inherited:
        if stage not in self.stages:
            raise ArtifactError(
                f"the champion's pipeline {self.run} has no finished stage {stage} any more",
                "Retrain from the base: r1 retrain --force whole",
            )
        return self.stages[stage]


def inheritance(settings: Retrain, url: str) -> Inheritance:
    """Find the stages of the champion's pipeline whose files are still there.

    Raises:
        StoreError: The store knows no such pipeline.
    """
    if not settings.champion:
        return Inheritance("", settings.start, {})
    engine = views.open_views(url)
    try:
        stages = views.run_overview(engine, settings.champion).stages
    finally:
        engine.dispose()
    found = {}
    for stage in stages:
        folder = Path(stage.output_path)
        manifest = read_manifest(folder) if stage.state in DONE and stage.output_path else None
        if manifest is not None:
            found[stage.name] = Inherited(folder, stage.key, manifest)
    return Inheritance(settings.champion, settings.start, found)
