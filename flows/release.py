"""What happens to finished models: registered, judged by the gate, promoted or not, exported.

Every checkpoint becomes a version in the registry with its measurement; the last one of the line is
the candidate. The gate decides from measurements alone, so the decision can be repeated from them.
"""

import getpass
import json
from collections.abc import Mapping
from pathlib import Path

from flows.pipeline import Pipeline, StagePlan, StageRun
from flows.stages import prompting_of
from services.artifacts import read_manifest
from services.config import Evaluation
from services.export import Provenance, export_checkpoint, smoke_test
from services.gates import Decision, decide
from services.recipes import recipe_digest
from services.registry import LINE, Registry, Version, model_of, open_registry
from services.store import store_url
from services.store.ledger import open_ledger
from services.types import CheckpointRef

CANDIDATE = "r1"
"""The row of the stage table that is put up for promotion."""


def gate(
    pipeline: Pipeline,
    checkpoints: Mapping[str, CheckpointRef],
    measured: Mapping[str, Mapping[str, float]],
) -> None:
    """Register every checkpoint and decide whether the candidate becomes champion."""

    def body(stage: StageRun) -> None:
        registry = open_registry(pipeline.home, open_ledger(store_url()))
        versions = {
            row: _register(registry, pipeline, stage, checkpoint, measured[row])
            for row, checkpoint in checkpoints.items()
        }
        smoke_test(Path(checkpoints[CANDIDATE].path))
        champion = _champion(registry)
        decision = decide(
            measured[CANDIDATE],
            json.loads(champion.tags["evaluation"]) if champion else None,
            measured["base"],
            pipeline.recipe.gate,
        )
        registry.nominate(LINE, versions[CANDIDATE])
        if decision.promote:
            head = registry.head(LINE)
            registry.promote(
                LINE,
                versions[CANDIDATE],
                who=getpass.getuser(),
                why=f"gate of {pipeline.run_id}",
                seen=head.sequence if head else 0,
            )
        said = _said(decision, versions[CANDIDATE])
        pipeline.store.write_decision(
            pipeline.run_id,
            CANDIDATE,
            candidate_digest=checkpoints[CANDIDATE].digest,
            champion_digest=champion.digest if champion else "",
            promoted=decision.promote,
            reasons=decision.reasons,
            note=said.partition(":")[0],
        )
        stage.facts["decision"] = said
        text = json.dumps({"decision": said, "reasons": decision.reasons}, indent=2)
        (stage.output / "decision.json").write_text(text, encoding="utf-8")

    plan = StagePlan("gate", "gate", pipeline.recipe.gate, checkpoints)
    made = pipeline.checkpoint(plan, body)
    pipeline.decision = json.loads((Path(made.path) / "decision.json").read_text())["decision"]


def _register(
    registry: Registry,
    pipeline: Pipeline,
    stage: StageRun,
    checkpoint: CheckpointRef,
    summary: Mapping[str, float],
) -> int:
    manifest = read_manifest(Path(checkpoint.path)) or {}
    return registry.register(
        checkpoint,
        model=model_of(checkpoint.stage, pipeline.recipe.models.student),
        pipeline=pipeline.run_id,
        recipe_digest=recipe_digest(pipeline.recipe),
        mlflow_run_id=manifest.get("mlflow_run_id", stage.track.mlflow_run_id),
        tags={"evaluation": json.dumps(summary)},
    )


def _champion(registry: Registry) -> Version | None:
    head = registry.head(LINE)
    if head is None:
        return None
    return next(v for v in registry.versions(LINE) if v.number == head.champion)


def _said(decision: Decision, version: int) -> str:
    if decision.promote:
        return f"{LINE} version {version} is champion: {'; '.join(decision.reasons)}"
    return f"{LINE} version {version} was not promoted: {'; '.join(decision.reasons)}"


def export(pipeline: Pipeline, checkpoint: CheckpointRef) -> None:
    """Write the final checkpoint as a self-contained folder with its card."""
    plan = StagePlan("export", "export", pipeline.recipe.models, {"policy": checkpoint})

    recipe = pipeline.recipe

    def body(stage: StageRun) -> None:
        export_checkpoint(
            checkpoint,
            stage.output / CANDIDATE,
            Provenance(
                name=f"{recipe.name}-r1",
                pipeline=pipeline.run_id,
                recipe=recipe.name,
                recipe_digest=recipe_digest(recipe),
                base=recipe.models.base,
                metrics=pipeline.measured[CANDIDATE],
                protocol=_protocol(recipe.evaluation),
                prompting=prompting_of(recipe, checkpoint),
            ),
        )

    made = pipeline.checkpoint(plan, body)
    pipeline.exported = str(Path(made.path) / CANDIDATE)


def _protocol(settings: Evaluation) -> str:
    return (
        f"{settings.problems_per_level} held-out problems of each level, {settings.samples} "
        f"samples of each at temperature {settings.temperature} and top-p {settings.top_p}."
    )
