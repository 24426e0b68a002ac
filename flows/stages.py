"""The stages of the recipe: what each one does with its inputs.

A stage here is a plan (what decides the result) and a body (how it is made); ``pipeline`` runs it.
Bodies call one mechanism of ``services`` each and leave their result in ``stage.output``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.identity import STAGES
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
from services.errors import RewardError
from services.evaluation import evaluate, open_sampler, sample_groups, sample_scored
from services.judging import Judges, score_function
from services.launch.command import launches
from services.launch.job import LaunchedRL, LaunchedSFT
from services.launch.supervise import run_launched
from services.prompts import r1_prompt
from services.reward_check import dry_run
from services.sampling import SamplingSettings
from services.tasks import general
from services.tasks.sources import (
    general_problems,
    held_out_general_problems,
    held_out_problems,
    rl_schedule,
    training_problems,
    validation_problems,
)
from services.training.grpo import train_rl
from services.training.job import RLJob
from services.training.preference import (
    Aspect,
    Judged,
    PreferenceModel,
    evaluate_preference,
    train_preference,
)
from services.training.sft import SFTJob, SFTRow, resumes_from, train_sft
from services.types import CheckpointRef, CuratedRow, DatasetRef, DropReason, Problem

ROWS_FILE = "rows.jsonl"
SUMMARIES_FILE = "summaries.json"
LAUNCH = "launch"
"""Folder of a stage that runs in processes of its own: its job, records and logs."""
DRY_RUN_PROBLEMS = 16
DRY_RUN_SAMPLES = 4
MOST_SPARES = 20_000
SEED_STRIDE = 1_000
"""Stages draw their problems from seeds this far apart, so that none repeats another's."""


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
            schedule=rl_schedule(recipe.problems, settings, _seed(pipeline, name)),
            held_out=_watched_by(pipeline, settings),
            spares=_spares(pipeline, name, settings),
        )
        if launches(recipe.engine):
            models = Path(preference.path) if preference else None
            run_launched(LaunchedRL(job, models), stage.work / LAUNCH, stage, pipeline.clock)
            return
        with score_function(
            settings.weights,
            _judges(pipeline, preference),
            shaping=settings.shaping,
            target_language=settings.target_language,
        ) as score:
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
    seed = _seed(pipeline, name) + SEED_STRIDE // 2
    return training_problems(pipeline.recipe.problems, seed, min(count, MOST_SPARES))


def _try_rewards(pipeline: Pipeline, base: CheckpointRef, settings: RL) -> None:
    """Score a few samples of the base first, and stop where training would be blind."""
    recipe = pipeline.recipe
    if recipe.check_rewards == "off":
        return
    problems = training_problems(recipe.problems, _seed(pipeline, "zero"), DRY_RUN_PROBLEMS)
    say = pipeline.progress.say
    with (
        pipeline.clock.measure("sampling"),
        open_sampler(Path(base.path), recipe.engine, say) as sampler,
    ):
        groups = sample_groups(
            sampler,
            problems,
            DRY_RUN_SAMPLES,
            SamplingSettings(settings.temperature, settings.max_new_tokens),
            f"seed-{recipe.seed}/dry-run",
        )
    with pipeline.clock.measure("scoring"):
        texts = [[completion.text for completion in group] for group in groups]
        fault = dry_run(problems, texts, settings.weights).fault
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
            seed=_seed(pipeline, name),
            rows=_read_rows(rows),
        )
        if launches(recipe.engine):
            launched = LaunchedSFT(job, plan.save_every)
            run_launched(launched, stage.work / LAUNCH, stage, pipeline.clock)
            return
        stage.resumed(resumes_from(job))
        train_sft(job, stage.step, pipeline.clock, save_every=plan.save_every)

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
        with (
            pipeline.clock.measure("sampling"),
            open_sampler(Path(policy.path), recipe.engine, pipeline.progress.say) as sampler,
            score_function(RewardWeights()) as score,
        ):
            groups = sample_scored(
                sampler,
                training_problems(recipe.problems, _seed(pipeline, name), settings.problems),
                settings.samples_per_problem,
                SamplingSettings(settings.temperature, settings.max_new_tokens),
                f"seed-{recipe.seed}/{name}",
                score,
            )
        rows = curate(groups, settings, policy.digest, rewrite)
        if recipe.problems.general:
            rows += non_reasoning_rows(settings.general_rows, recipe.seed)
        pipeline.store.write_curation(pipeline.run_id, name, rows)
        summary = summarise(rows)
        stage.facts |= {"rows": summary.kept, "candidates": summary.candidates, **summary.by_reason}
        _write_rows(stage.output, rows)

    return pipeline.dataset(plan, body)


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
        for aspect in ("helpfulness", "safety"):
            with pipeline.clock.measure("training"):
                train_preference(
                    Path(base.path),
                    judged["train"][aspect],
                    aspect,
                    settings,
                    recipe.engine,
                    stage.work,
                    stage.output / aspect,
                    _seed(pipeline, "preference"),
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

    return pipeline.checkpoint(plan, body)


def _judged(
    pipeline: Pipeline, policies: Sequence[CheckpointRef], *, held_out: bool
) -> dict[Aspect, list[Judged]]:
    """Responses of the policies to general prompts, labelled by the rubric."""
    recipe, settings = pipeline.recipe, pipeline.recipe.preference
    seed = _seed(pipeline, "preference")
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


def evaluations(
    pipeline: Pipeline, checkpoints: Mapping[str, CheckpointRef]
) -> dict[str, dict[str, float]]:
    """Measure every checkpoint; the summaries by the name of its row."""
    recipe, settings = pipeline.recipe, pipeline.recipe.evaluation
    problems = held_out_problems(recipe.problems, settings.seed, settings.problems_per_level)
    talk = (
        held_out_general_problems(settings.seed, settings.general_prompts)
        if recipe.problems.general
        else []
    )

    def body(stage: StageRun) -> None:
        for done, (name, checkpoint) in enumerate(checkpoints.items(), start=1):
            part = stage.work / f"{name}.json"
            if not part.is_file():
                with (
                    open_sampler(
                        Path(checkpoint.path), recipe.engine, pipeline.progress.say
                    ) as sampler,
                    score_function(RewardWeights()) as score,
                ):
                    result = evaluate(
                        sampler,
                        problems,
                        talk,
                        settings,
                        score,
                        pipeline.clock,
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


def _seed(pipeline: Pipeline, stage: str) -> int:
    """The seed of a stage's own draws."""
    return pipeline.recipe.seed * SEED_STRIDE + STAGES.index(stage)


def _judges(pipeline: Pipeline, preference: CheckpointRef | None) -> Judges:
    if preference is None:
        return {}
    engine = pipeline.recipe.engine
    aspects: tuple[Aspect, ...] = ("helpfulness", "safety")
    return {
        aspect: PreferenceModel(Path(preference.path) / aspect, aspect, engine)
        for aspect in aspects
    }


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


def _read_rows(data: DatasetRef) -> list[SFTRow]:
    lines = (Path(data.path) / ROWS_FILE).read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    return [SFTRow(r1_prompt(row["question"]), row["completion"]) for row in rows]
