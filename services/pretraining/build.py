"""Rebuilding the bundled models: tokenizer, pretraining, measurement, model card.

What is measured is written beside the weights and into the card; nothing in a card is typed by
hand. The bars are those a base model must meet for the ``tiny`` recipe to show what it claims.
"""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from services.artifacts import MANIFEST, new_folder, write_atomically
from services.base_models import BUNDLED, CARD, MEASURED
from services.clock import WorkClock
from services.config import Evaluation, Recipe
from services.evaluation import measure
from services.pretraining.moe import MoEShape
from services.pretraining.pretrain import (
    BASE_SHAPE,
    MOE_SHAPE,
    STUDENT_SHAPE,
    PretrainProgress,
    Shape,
    new_model,
    pretrain,
)
from services.pretraining.tokenizer import build_tokenizer
from services.training.policies import load_policy, save_policy


class Build(NamedTuple):
    """How one bundled model is made."""

    shape: Shape | MoEShape
    steps: int
    learning_rate: float
    role: str
    batch_size: int = 128
    """Documents in a step."""


BUILDS = {
    "tiny-base": Build(BASE_SHAPE, 5000, 3e-3, "the base of the tiny recipe"),
    "tiny-student": Build(STUDENT_SHAPE, 4000, 4e-3, "the student of the tiny recipe"),
    "tiny-moe-base": Build(MOE_SHAPE, 3000, 3e-3, "the base of the tiny-moe recipe", 64),
}

BARS: dict[str, tuple[float, float]] = {
    "slips": (0.0, 0.005),
    "repeated_attempts": (0.0, 0.05),
    "pass@1": (0.35, 0.60),
    "format": (0.98, 1.0),
}
"""What a base must show on held-out problems, as (least, most)."""


def build(
    name: str, recipe: Recipe, report: Callable[[PretrainProgress], None], *, seed: int = 0
) -> dict[str, float]:
    """Pretrain a bundled model anew, measure it and put it in its place."""
    plan = BUILDS[name]
    tokenizer = build_tokenizer()
    model = new_model(plan.shape, tokenizer, seed)
    seen: list[PretrainProgress] = []

    def note(progress: PretrainProgress) -> None:
        seen.append(progress)
        report(progress)

    started = time.process_time()
    pretrain(
        model,
        tokenizer,
        seed=seed,
        steps=plan.steps,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        report=note,
    )
    with new_folder(BUNDLED / name) as folder:
        save_policy(model, tokenizer, folder)
        facts = _planned(name, model, seed) | {
            "trained_tokens": seen[-1].tokens,
            "last_loss": round(seen[-1].loss, 4),
            "processor_minutes": round((time.process_time() - started) / 60, 1),
            "torch": torch.__version__.partition("+")[0],
            "transformers": transformers.__version__,
            "machine": f"{torch.get_num_threads()} threads, {platform.machine()}",
        }
        summary = measure_bundled(folder, recipe)
        _write_card(folder, plan, facts, summary, recipe.evaluation)
    (BUNDLED / name / MANIFEST).unlink()  # of artifacts; what belongs to the source has none
    return summary


def renew_card(name: str, recipe: Recipe) -> dict[str, float]:
    """Measure a bundled model as it is and write its card anew; its weights stay."""
    folder = BUNDLED / name
    known = folder / MEASURED
    facts = (
        json.loads(known.read_text(encoding="utf-8"))["build"]
        if known.is_file()
        else _planned(name, load_policy(folder, torch.device("cpu")), seed=0)
    )
    summary = measure_bundled(folder, recipe)
    _write_card(folder, BUILDS[name], facts, summary, recipe.evaluation)
    return summary


def _planned(name: str, model: torch.nn.Module, seed: int) -> dict[str, object]:
    """What is known of a build without having watched it."""
    return {
        "name": name,
        "seed": seed,
        "steps": BUILDS[name].steps,
        "batch_size": BUILDS[name].batch_size,
        "learning_rate": BUILDS[name].learning_rate,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def measure_bundled(folder: Path, recipe: Recipe) -> dict[str, float]:
    """What a model shows by the recipe's own protocol."""
    return measure(folder, recipe, recipe.evaluation, WorkClock()).summary


def failed_bars(summary: dict[str, float]) -> list[str]:
    """The bars a base misses, in words."""
    return [
        f"{name} is {summary[name]:.3f}, not within {least} to {most}"
        for name, (least, most) in BARS.items()
        if not least <= summary[name] <= most
    ]


def _write_card(
    folder: Path,
    plan: Build,
    facts: dict[str, object],
    summary: dict[str, float],
    protocol: Evaluation,
) -> None:
    measured = {name: round(value, 4) for name, value in sorted(summary.items())}
    write_atomically(
        folder / MEASURED,
        json.dumps(
            {"build": facts, "measured": measured, "protocol": protocol.model_dump(mode="json")},
            indent=2,
        )
        + "\n",
    )
    rows = "\n".join(f"| {name} | {value} |" for name, value in measured.items())
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    write_atomically(
        folder / CARD,
        f"""---
license: apache-2.0
library_name: transformers
language: [en, zh]
---
# {facts["name"]}

A {plan.shape}, {plan.role}. It has been trained on
synthetic documents alone: countdown puzzles with searching traces, and short conversations, in
English and Chinese. It has good and bad habits on purpose: it gives up early, mixes languages, is
curt and complies with harmful requests in its small world. It is a place to start reinforcement
learning from, not a model to use.

Load it with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`; rebuild it
with `r1 base build {facts["name"]}`.

## Built

{lines}

## Measured

{protocol.problems_per_level} held-out problems of each level, {protocol.samples} samples of each at
temperature {protocol.temperature}, seed {protocol.seed}.

| metric | value |
|---|---|
{rows}
""",
    )
