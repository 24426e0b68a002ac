"""Measuring a checkpoint: the protocol of the paper on held-out problems (v2, section D).

k completions of each problem give pass@1 (their mean correctness) and cons@k (whether the most
frequent answer is right). Levels are averaged with equal weight. Problems, samples and random
streams depend on the evaluation's own seed alone, so two checkpoints see the same questions.
Helpfulness and safety are shares by the written rubric, not by the models trained on it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from transformers import AutoTokenizer

from services.clock import WorkClock
from services.config import Engine, Evaluation, Recipe, RewardWeights
from services.errors import RewardError
from services.judging import score_function
from services.metrics import Scored, batch_metrics, majority_is_right
from services.prompts import R1_PROMPTING, Format, Prompting, parse
from services.sampling import GroupDone, Sampler, SampleRequest, SamplingSettings
from services.sampling.endpoint import EndpointSampler, place_from_environment, stop_ids_of
from services.sampling.local import LocalSampler
from services.sampling.random_streams import stream_seed
from services.sampling.vllm_server import vllm_server
from services.tasks import general
from services.tasks.sources import held_out_general_problems, held_out_problems
from services.traces import facts_of
from services.training.job import ScoreFunction, prompting_for
from services.training.machine import device_of
from services.training.policies import load_policy
from services.types import Completion, EvaluationSample, Problem


class EvaluationResult(NamedTuple):
    """What one checkpoint showed."""

    summary: dict[str, float]
    samples: list[EvaluationSample]


@contextmanager
def open_sampler(
    checkpoint: Path, engine: Engine, say: Callable[[str], None] = lambda _: None
) -> Iterator[Sampler]:
    """The sampler of ``engine.sampler`` over a checkpoint; a server of ours ends with the block.

    Args:
        checkpoint: A Hugging Face folder.
        engine: Which engine, and its settings.
        say: Told how the start of a server goes, a line at a time.

    Raises:
        ArtifactError: The folder is no loadable checkpoint.
        R1Error: The engine cannot be started or reached; the message names the mend.
    """
    if engine.sampler == "local":
        yield load_sampler(checkpoint, engine)
        return
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    stop_ids = stop_ids_of(checkpoint, tokenizer)
    if engine.sampler == "openai":
        place = place_from_environment(checkpoint)
        yield EndpointSampler(place, tokenizer, engine.endpoint, stop_ids)
        return
    with vllm_server(checkpoint, engine, say) as place:
        yield EndpointSampler(place, tokenizer, engine.endpoint, stop_ids)


def load_sampler(checkpoint: Path, engine: Engine) -> LocalSampler:
    """A local sampler over a checkpoint's weights.

    Raises:
        ArtifactError: The folder is no loadable checkpoint.
    """
    model = load_policy(checkpoint, device_of(engine))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    return LocalSampler(model, tokenizer, batch_size=engine.batch_size)


def sample_groups(
    sampler: Sampler,
    problems: Sequence[Problem],
    samples: int,
    settings: SamplingSettings,
    stream: str,
    group_done: GroupDone | None = None,
    prompting: Prompting = R1_PROMPTING,
) -> list[list[Completion]]:
    """``samples`` completions of each problem, from random streams named after ``stream``."""
    requests = [
        SampleRequest(prompting.prompt(problem.question), samples, stream_seed(f"{stream}/{place}"))
        for place, problem in enumerate(problems)
    ]
    return sampler.sample(requests, settings, group_done)


def sample_scored(
    sampler: Sampler,
    problems: Sequence[Problem],
    samples: int,
    settings: SamplingSettings,
    stream: str,
    score: ScoreFunction,
    prompting: Prompting = R1_PROMPTING,
) -> list[list[Scored]]:
    """Sample and score problems outside training; groups in the order of the problems."""
    groups = sample_groups(
        sampler,
        problems,
        samples,
        settings,
        stream,
        lambda place, group: score.begin(problems[place], group),
        prompting,
    )
    scores = score(problems, groups)
    return [
        [
            Scored(
                problem,
                completion,
                mark,
                facts_of(
                    problem,
                    completion.text,
                    mark.verdict,
                    truncated=completion.truncated,
                    form=prompting.form,
                ),
            )
            for completion, mark in zip(group, marks, strict=True)
        ]
        for problem, group, marks in zip(problems, groups, scores, strict=True)
    ]


def measure(
    checkpoint: Path,
    recipe: Recipe,
    settings: Evaluation,
    clock: WorkClock,
    say: Callable[[str], None] = lambda _: None,
) -> EvaluationResult:
    """Measure a checkpoint on a recipe's held-out problems and general prompts.

    Args:
        checkpoint: Folder of the model.
        recipe: Says where problems come from and where to compute.
        settings: The protocol; the recipe's own, or one with another seed.
        clock: Counts the seconds.
        say: Told how the start of a sampling server goes.
    """
    talk = (
        held_out_general_problems(settings.seed, settings.general_prompts)
        if recipe.problems.general
        else []
    )
    problems = held_out_problems(recipe.problems, settings.seed, settings.problems_per_level)
    prompting = prompting_of(recipe, checkpoint)
    with (
        open_sampler(checkpoint, recipe.engine, say) as sampler,
        score_function(RewardWeights(), form=prompting.form) as score,
    ):
        return evaluate(sampler, problems, talk, settings, score, clock, prompting)


def prompting_of(recipe: Recipe, policy: Path) -> Prompting:
    """How a policy is asked; through its own chat template where the recipe says so."""
    return prompting_for(policy, recipe.problems.format, chat=recipe.problems.chat)


def evaluate(
    sampler: Sampler,
    problems: Sequence[Problem],
    general_prompts: Sequence[Problem],
    settings: Evaluation,
    score: ScoreFunction,
    clock: WorkClock,
    prompting: Prompting = R1_PROMPTING,
) -> EvaluationResult:
    """Measure a checkpoint on held-out problems and general prompts."""
    how = SamplingSettings(settings.temperature, settings.max_new_tokens, settings.top_p)
    stream = f"evaluation-{settings.seed}"
    with clock.measure("evaluating"):
        groups = sample_scored(sampler, problems, settings.samples, how, stream, score, prompting)
        talk = sample_scored(
            sampler, general_prompts, settings.general_samples, how, f"{stream}/general", score
        )
    summary = summarise(groups, settings.samples, prompting.form)
    if talk:
        summary |= _general_summary([row for group in talk for row in group])
    samples = [
        EvaluationSample(row.problem, place, row.completion, row.score, row.facts)
        for group in (*groups, *talk)
        for place, row in enumerate(group)
    ]
    return EvaluationResult(summary, samples)


def summarise(groups: Sequence[Sequence[Scored]], k: int, form: Format = "r1") -> dict[str, float]:
    """Columns of the stage table from scored groups, one group per problem.

    Completions that could not be scored are told as ``unscorable`` and count nowhere else.

    Raises:
        RewardError: None could be scored.
    """
    rows = [row for group in groups for row in group]
    values = batch_metrics(rows)
    groups = [scorable for group in groups if (scorable := [row for row in group if row.scorable])]
    if not groups:
        raise RewardError(
            f"no completion of the evaluation can be scored: {rows[0].score.reason}",
            "Give the held-out problems references and a kind that fit",
        )
    levels = sorted({group[0].problem.level for group in groups})
    by_level = {
        level: [group for group in groups if group[0].problem.level == level] for level in levels
    }
    pass_at_1 = {
        level: fmean(row.correct for group in of_level for row in group)
        for level, of_level in by_level.items()
    }
    summary = {
        "pass@1": fmean(pass_at_1.values()),
        f"cons@{k}": fmean(
            fmean(majority_is_right(group, form) for group in of_level)
            for of_level in by_level.values()
        ),
        f"pass@{k}": fmean(
            fmean(any(row.correct for row in group) for group in of_level)
            for of_level in by_level.values()
        ),
        "format": values["reward/format"],
    }
    summary |= {f"pass@1/level_{level}": value for level, value in pass_at_1.items() if level}
    kept = ("length/", "language/", "false_claims", "slips", "repeated_attempts", "attempts/",
            "reflective/", "gives_up", "truncated", "unscorable")  # fmt: skip
    return summary | {name: v for name, v in values.items() if name.startswith(kept)}


def _general_summary(rows: Sequence[Scored]) -> dict[str, float]:
    """Helpfulness on harmless prompts, safety on all; both by the rubric."""
    prompts = [general.prompt_of(row.problem.question) for row in rows]
    pairs = list(zip(prompts, rows, strict=True))
    return {
        "helpfulness": fmean(
            general.is_helpful(prompt, parse(row.completion.text).answer)
            for prompt, row in pairs
            if prompt.kind != "harmful"
        ),
        "safety": fmean(general.is_safe(prompt, row.completion.text) for prompt, row in pairs),
        "general/language": fmean(row.facts.language_share for row in rows),
        "general/format": fmean(row.score.parts["format"] for row in rows),
    }
