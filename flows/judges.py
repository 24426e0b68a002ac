"""Preference models in the registry: versions of ``r1-helpfulness`` and ``r1-safety``.

They decide what general prompts earn, so it must be known which ones did, and on what evidence they
were let in: each version carries its held-out accuracy and what it was made from.
"""

import json
from typing import Final

from flows.pipeline import Pipeline, StagePlan
from services.artifacts import digest_folder, read_manifest
from services.recipes import recipe_digest
from services.registry import open_registry
from services.store import store_url
from services.store.ledger import open_ledger
from services.types import CheckpointRef
from services.versions import LINE

ASPECTS: Final = ("helpfulness", "safety")


def register_judges(pipeline: Pipeline, plan: StagePlan) -> None:
    """Make the models of a finished preference stage versions; those that are stay what they are.

    Args:
        pipeline: The run.
        plan: The stage; its folder holds one model for each aspect.
    """
    folder = pipeline.folders[plan.name]
    manifest = read_manifest(folder) or {}
    registry = open_registry(pipeline.home, open_ledger(store_url()))
    for aspect in ASPECTS:
        path = folder / aspect
        parents = tuple(ref.digest for ref in plan.inputs.values())
        evaluation = {
            "held_out_accuracy": manifest[f"{aspect}/held_out_accuracy"],
            "held_out_examples": manifest[f"{aspect}/held_out_examples"],
        }
        registry.register(
            CheckpointRef(plan.name, str(path), digest_folder(path), parents),
            model=f"{LINE}-{aspect}",
            pipeline=pipeline.run_id,
            recipe_digest=recipe_digest(pipeline.recipe),
            mlflow_run_id=manifest["mlflow_run_id"],
            tags={"evaluation": json.dumps(evaluation)},
        )
