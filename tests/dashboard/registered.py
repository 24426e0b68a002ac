"""Test data: registered versions of a bundled model, with a champion and one before it."""

import json
from pathlib import Path

from services.artifacts import digest_folder
from services.base_models import BUNDLED
from services.registry import Registry, open_registry
from services.store.ledger import open_ledger
from services.types import CheckpointRef

MODEL = "r1"
STAGES = ("zero", "dev2", "r1")
"""Stages of the seeded run, registered as versions 1, 2 and 3."""


def register(home: Path, store_url: str, run_id: str) -> Registry:
    """Three versions: 1 was champion, 2 is, 3 is the candidate; all of them are the same model."""
    registry = open_registry(home, open_ledger(store_url))
    folder = BUNDLED / "tiny-base"
    for place, stage in enumerate(STAGES, start=1):
        registry.register(
            CheckpointRef(stage, str(folder), f"digest-of-{stage}", ("digest-of-base",)),
            model=MODEL,
            pipeline=run_id,
            recipe_digest="5eed",
            mlflow_run_id="",
            tags={
                "evaluation": json.dumps({"pass@1": place / 4, "format": 1.0}),
                "folder": digest_folder(folder)[:12],
            },
        )
    registry.promote(MODEL, 1, who="gate", why="the first one")
    registry.promote(MODEL, 2, who="gate", why="better on all levels")
    registry.nominate(MODEL, 3)
    return registry
