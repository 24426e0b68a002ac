"""Preference models: how they are made, and their versions, ``r1-helpfulness`` and ``r1-safety``.

They decide what general prompts earn, so it must be known which ones did, and on what evidence they
were let in: each version carries its held-out accuracy and what it was made from.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from flows.pipeline import Pipeline, StagePlan, StageRun
from flows.stages import seed_of
from services.artifacts import digest_folder, read_manifest
from services.config import RewardWeights
from services.errors import RewardError
from services.evaluation import open_sampler, sample_scored
from services.judging import score_function
from services.recipes import recipe_digest
from services.registry import open_registry
from services.sampling import SamplingSettings
from services.store import store_url
from services.store.ledger import open_ledger
from services.tasks import general
from services.tasks.sources import general_problems, held_out_general_problems
from services.training.preference import (
    ASPECTS,
    Aspect,
    Judged,
    PreferenceModel,
    evaluate_preference,
    train_preference,
)
from services.types import CheckpointRef
from services.versions import LINE


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


def preference_models(
    pipeline: Pipeline, base: CheckpointRef, sampled: CheckpointRef
) -> CheckpointRef:
    """Helpfulness and safety models, from responses of the base and of a later checkpoint."""
    recipe, settings = pipeline.recipe, pipeline.recipe.preference
    plan = StagePlan("preference", "preference", settings, {"policy": base, "sampled": sampled})

    def body(stage: StageRun) -> None:
        judged = {
            split: _judged(pipeline, (base, sampled), held_out=split == "held_out")
            for split in ("train", "held_out")
        }
        for aspect in ASPECTS:
            with pipeline.clock.measure("training"):
                train_preference(
                    Path(base.path),
                    judged["train"][aspect],
                    aspect,
                    settings,
                    recipe.engine,
                    stage.work,
                    stage.output / aspect,
                    seed_of(pipeline, "preference"),
                )
            with pipeline.clock.measure("evaluating"):
                model = PreferenceModel(stage.output / aspect, aspect, recipe.engine)
                report = evaluate_preference(model, judged["held_out"][aspect])
            stage.facts[f"{aspect}/held_out_accuracy"] = report.accuracy
            stage.facts[f"{aspect}/held_out_examples"] = report.examples
            if report.accuracy < settings.min_accuracy:
                raise RewardError(
                    f"the {aspect} model is right on {report.accuracy:.0%} of "
                    f"{report.examples} held-out examples, less than {settings.min_accuracy:.0%}",
                    "Give it more data with --set preference.prompts=…, or lower "
                    "preference.min_accuracy",
                )

    try:
        return pipeline.checkpoint(plan, body)
    finally:
        if plan.name in pipeline.folders:  # also where it was the last stage asked for
            register_judges(pipeline, plan)


def _judged(
    pipeline: Pipeline, policies: Sequence[CheckpointRef], *, held_out: bool
) -> dict[Aspect, list[Judged]]:
    """Responses of the policies to general prompts, labelled by the rubric."""
    recipe, settings = pipeline.recipe, pipeline.recipe.preference
    seed = seed_of(pipeline, "preference")
    prompts, samples = (
        (held_out_general_problems(seed, settings.prompts), settings.held_out_samples)
        if held_out
        else (general_problems(seed, settings.prompts), settings.samples_per_prompt)
    )
    labelled: dict[Aspect, list[Judged]] = {"helpfulness": [], "safety": []}
    for policy in policies:
        with (
            pipeline.clock.measure("sampling"),
            open_sampler(Path(policy.path), recipe.engine, pipeline.progress.say) as sampler,
            score_function(RewardWeights()) as score,
        ):
            groups = sample_scored(
                sampler,
                prompts,
                samples,
                SamplingSettings(1.0, settings.max_new_tokens),
                f"seed-{recipe.seed}/preference/{policy.stage}/{held_out}",
                score,
            )
        for row in (row for group in groups for row in group):
            prompt = general.prompt_of(row.problem.question)
            text = row.completion.text
            aspect: Aspect = "safety" if prompt.kind == "harmful" else "helpfulness"
            labelled[aspect].append(Judged(prompt.text, text, general.is_good(prompt, text)))
    return labelled
