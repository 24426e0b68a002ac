"""The stages of the recipe: what each one does with its inputs.

A stage here is a plan (what decides the result) and a body (how it is made); ``pipeline`` runs it.
Bodies call one mechanism of ``services`` each and leave their result in ``stage.output``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.pipeline import Pipeline, StagePlan, StageRun
from services.artifacts import write_atomically
from services.base_models import resolve_model
from services.config import RL, SFT, Curation, RewardWeights
from services.curation import (
    Rewrite,
    as_sampled,
    curate,
    non_reasoning_rows,
    rewrite_readable,
    summarise,
)
from services.evaluation import (
    measure,
    open_sampler,
    prompting_of,
    sample_groups,
    sample_scored,
)
from services.judging import score_function
from services.launch.command import launches
from services.launch.job import LaunchedRL, LaunchedSFT, reward_of
from services.launch.supervise import run_launched
from services.prompts import Prompting
from services.reward_check import dry_run
from services.sampling import SamplingSettings
from services.tasks.sources import (
    rl_schedule,
    training_problems,
    validation_problems,
)
from services.training.checkpoints import steps_done
from services.training.grpo import train_rl
from services.training.job import RLJob
from services.training.on_policy import OnPolicyJob, train_on_policy
from services.training.sft import SFTJob, SFTRow, train_sft
from services.types import CheckpointRef, CuratedRow, DatasetRef, DropReason, Problem

ROWS_FILE = "rows.jsonl"
SUMMARIES_FILE = "summaries.json"
LAUNCH = "launch"
"""Folder of a stage that runs in processes of its own: its job, records and logs."""
DRY_RUN_PROBLEMS = 16
DRY_RUN_SAMPLES = 4
MOST_SPARES = 20_000
DRY_RUN_REFERENCES = 512
"""So many references must verify against themselves before training."""
SEED_STRIDE = 1_000
"""Recipes' seeds lie this far apart, so that none repeats another's."""
SEEDED = (
    "zero", "cold-start", "dev1", "dev2", "sft-set", "dev3", "preference", "r1",
    "distill", "student-rl", "on-policy",
)  # fmt: skip
"""Stages that draw, in the order of their seeds. New ones come last: nobody else's draws may move
when a stage is added."""


def model(pipeline: Pipeline, role: str) -> CheckpointRef:
    """A model that enters the pipeline: ``base`` or ``student-base``."""
    models = pipeline.recipe.models
    name = models.base if role == "base" else models.student
    folder, digest = resolve_model(name, pipeline.home)
    return CheckpointRef(role, str(folder), digest)


def reinforce(
    pipeline: Pipeline,
    name: str,
    policy: CheckpointRef,
    settings: RL,
    preference: CheckpointRef | None = None,
) -> CheckpointRef:
    """GRPO from ``policy``; with preference models where general prompts take part."""
    recipe = pipeline.recipe
    inputs = {"policy": policy} | ({"preference": preference} if preference else {})
    plan = StagePlan(
        name,
        "rl",
        settings,
        inputs,
        settings.steps,
        settings.save_every,
        {"estimator": settings.estimator},
    )

    def body(stage: StageRun) -> None:
        if name == "zero" and not stage.work.exists():
            _try_rewards(pipeline, policy, settings)
        job = RLJob(
            policy=Path(policy.path),
            output=stage.output,
            work=stage.work,
            settings=settings,
            engine=recipe.engine,
            stream=f"seed-{recipe.seed}/{name}",
            schedule=rl_schedule(recipe.problems, settings, seed_of(pipeline, name)),
            held_out=_watched_by(pipeline, settings),
            spares=_spares(pipeline, name, settings),
            form=recipe.problems.format,
            chat=recipe.problems.chat,
        )
        launched = LaunchedRL(job, Path(preference.path) if preference else None)
        if launches(recipe.engine):
            run_launched(launched, stage.work / LAUNCH, stage, pipeline.clock)
            return
        with reward_of(launched) as score:
            train_rl(job, score, stage, pipeline.clock)

    return pipeline.checkpoint(plan, body)


def _watched_by(pipeline: Pipeline, settings: RL) -> list[Problem]:
    """Held-out problems that a stage is watched by."""
    recipe = pipeline.recipe
    if not settings.eval_every:
        return []
    return validation_problems(recipe.problems, recipe.evaluation, settings.eval_problems)


def _spares(pipeline: Pipeline, name: str, settings: RL) -> list[Problem]:
    """Questions to put in the place of too easy and too hard ones."""
    if not settings.choice.rounds:
        return []
    count = settings.steps * settings.prompts_per_step * settings.choice.rounds
    seed = seed_of(pipeline, name) + SEED_STRIDE // 2
    return training_problems(pipeline.recipe.problems, seed, min(count, MOST_SPARES))


def _try_rewards(pipeline: Pipeline, base: CheckpointRef, settings: RL) -> None:
    """Score a few samples of the base first, and stop where training would be blind."""
    recipe = pipeline.recipe
    if recipe.check_rewards == "off":
        return
    drawn = training_problems(recipe.problems, seed_of(pipeline, "zero"), DRY_RUN_REFERENCES)
    problems = list(dict.fromkeys(drawn))
    say = pipeline.progress.say
    with (
        pipeline.clock.measure("sampling"),
        open_sampler(Path(base.path), recipe.engine, say) as sampler,
    ):
        groups = sample_groups(
            sampler,
            problems[:DRY_RUN_PROBLEMS],
            DRY_RUN_SAMPLES,
            SamplingSettings(settings.temperature, settings.max_new_tokens),
            f"seed-{recipe.seed}/dry-run",
            prompting=prompting_of(recipe, Path(base.path)),
        )
    with pipeline.clock.measure("scoring"):
        fault = dry_run(problems, groups, settings, form=recipe.problems.format).fault
    if fault and recipe.check_rewards == "stop":
        raise fault
    if fault:
        pipeline.progress.say(f"warning: {fault.what}")


def fine_tune(
    pipeline: Pipeline, name: str, start: CheckpointRef, rows: DatasetRef, settings: SFT
) -> CheckpointRef:
    """SFT of ``start`` on a curated set."""
    recipe = pipeline.recipe
    steps = max(1, round(rows.rows * settings.epochs / settings.batch_size))
    plan = StagePlan(name, "sft", settings, {"policy": start, "data": rows}, steps)

    def body(stage: StageRun) -> None:
        job = SFTJob(
            policy=Path(start.path),
            output=stage.output,
            work=stage.work,
            settings=settings,
            engine=recipe.engine,
            seed=seed_of(pipeline, name),
            rows=_read_rows(rows, prompting_of(recipe, Path(start.path))),
        )
        if launches(recipe.engine):
            launched = LaunchedSFT(job, plan.save_every)
            run_launched(launched, stage.work / LAUNCH, stage, pipeline.clock)
            return
        stage.resumed(steps_done(stage.work))
        train_sft(job, stage.step, pipeline.clock, save_every=plan.save_every)

    return pipeline.checkpoint(plan, body)


def teach_on_policy(
    pipeline: Pipeline, student: CheckpointRef, teacher: CheckpointRef
) -> CheckpointRef:
    """Distillation of ``teacher`` on the student's own samples."""
    recipe, settings = pipeline.recipe, pipeline.recipe.on_policy
    mixed = RL(
        steps=settings.steps,
        prompts_per_step=settings.prompts_per_step,
        general_share=settings.general_share,
        preference_last_steps=settings.steps,
    )
    inputs = {"policy": student, "teacher": teacher}
    plan = StagePlan("on-policy", "sft", settings, inputs, settings.steps, settings.save_every)

    def body(stage: StageRun) -> None:
        job = OnPolicyJob(
            student=Path(student.path),
            teacher=Path(teacher.path),
            output=stage.output,
            work=stage.work,
            settings=settings,
            engine=recipe.engine,
            stream=f"seed-{recipe.seed}/on-policy",
            prompting=prompting_of(recipe, Path(student.path)),
            schedule=rl_schedule(recipe.problems, mixed, seed_of(pipeline, "on-policy")),
        )
        stage.resumed(steps_done(stage.work))
        train_on_policy(job, stage.step, pipeline.clock)

    return pipeline.checkpoint(plan, body)


def cold_start(pipeline: Pipeline, policy: CheckpointRef) -> DatasetRef:
    """The cold-start set: readable rewrites of what r1-zero gets right."""
    return _curated_set(
        pipeline, "cold-start", policy, pipeline.recipe.cold_start, rewrite_readable
    )


def sft_set(pipeline: Pipeline, policy: CheckpointRef) -> DatasetRef:
    """Rejection samples of dev2 and non-reasoning rows."""
    return _curated_set(pipeline, "sft-set", policy, pipeline.recipe.sft_set, as_sampled)


def _curated_set(
    pipeline: Pipeline, name: str, policy: CheckpointRef, settings: Curation, rewrite: Rewrite
) -> DatasetRef:
    recipe = pipeline.recipe
    plan = StagePlan(name, "curation", settings, {"policy": policy})

    def body(stage: StageRun) -> None:
        form = recipe.problems.format
        with (
            pipeline.clock.measure("sampling"),
            open_sampler(Path(policy.path), recipe.engine, pipeline.progress.say) as sampler,
            score_function(RewardWeights(), form=form) as score,
        ):
            groups = sample_scored(
                sampler,
                training_problems(recipe.problems, seed_of(pipeline, name), settings.problems),
                settings.samples_per_problem,
                SamplingSettings(settings.temperature, settings.max_new_tokens),
                f"seed-{recipe.seed}/{name}",
                score,
                prompting_of(recipe, Path(policy.path)),
            )
        rows = curate(groups, settings, policy.digest, rewrite, form)
        if recipe.problems.general:
            rows += non_reasoning_rows(settings.general_rows, recipe.seed)
        pipeline.store.write_curation(pipeline.run_id, name, rows)
        summary = summarise(rows)
        stage.facts |= {"rows": summary.kept, "candidates": summary.candidates, **summary.by_reason}
        _write_rows(stage.output, rows)

    return pipeline.dataset(plan, body)


def evaluations(
    pipeline: Pipeline, checkpoints: Mapping[str, CheckpointRef]
) -> dict[str, dict[str, float]]:
    """Measure every checkpoint; the summaries by the name of its row."""
    settings = pipeline.recipe.evaluation

    def body(stage: StageRun) -> None:
        for done, (name, checkpoint) in enumerate(checkpoints.items(), start=1):
            part = stage.work / f"{name}.json"
            if not part.is_file():
                result = measure(
                    Path(checkpoint.path),
                    pipeline.recipe,
                    settings,
                    pipeline.clock,
                    pipeline.progress.say,
                )
                protocol = settings.model_dump(mode="json")
                pipeline.store.write_evaluation(
                    pipeline.run_id, name, result.summary, protocol, result.samples
                )
                write_atomically(part, json.dumps(result.summary))
            summary = json.loads(part.read_text())
            stage.track.log(done, {f"{name}/{key}": v for key, v in summary.items()})
            pipeline.progress.step(done, {"accuracy": summary["pass@1"]})
        summaries = {
            name: json.loads((stage.work / f"{name}.json").read_text()) for name in checkpoints
        }
        (stage.output / SUMMARIES_FILE).write_text(json.dumps(summaries, indent=2))

    plan = StagePlan("evaluate", "evaluation", settings, checkpoints, len(checkpoints))
    made = pipeline.checkpoint(plan, body)
    pipeline.measured = json.loads((Path(made.path) / SUMMARIES_FILE).read_text())
    return pipeline.measured


def seed_of(pipeline: Pipeline, stage: str) -> int:
    """The seed of a stage's own draws."""
    return pipeline.recipe.seed * SEED_STRIDE + SEEDED.index(stage)


def _write_rows(folder: Path, rows: Sequence[CuratedRow]) -> None:
    with (folder / ROWS_FILE).open("w", encoding="utf-8") as file:
        for row in rows:
            if row.reason is DropReason.KEPT:
                line = {
                    "question": row.problem.question,
                    "completion": row.rewritten,
                    "problem": row.problem.id,
                    "source": row.source,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _read_rows(data: DatasetRef, prompting: Prompting) -> list[SFTRow]:
    lines = (Path(data.path) / ROWS_FILE).read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    return [SFTRow(prompting.prompt(row["question"]), row["completion"]) for row in rows]
