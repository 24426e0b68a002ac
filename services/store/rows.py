"""Records of the vocabulary as rows of the tables."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from services.artifacts import digest_of
from services.types import (
    Completion,
    CuratedRow,
    EvaluationSample,
    Metrics,
    Problem,
    Rollout,
    Score,
    TraceFacts,
)

Row = dict[str, Any]


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """None for what is not a finite number: JSON and charts have no other word for it."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def problem_digest(problem: Problem) -> str:
    """What makes two problems the same question."""
    return digest_of(list(asdict(problem).values()))


def problem_row(problem: Problem) -> Row:
    """A problem, its source's id as its name."""
    fields = asdict(problem)
    return {"digest": problem_digest(problem), "name": fields.pop("id"), **fields}


def metric_rows(stage_id: int, metrics: Metrics) -> list[Row]:
    """One row for each number of a step."""
    return [
        {"stage_id": stage_id, "step": metrics.step, "name": name, "value": value}
        for name, value in finite(metrics.values).items()
    ]


def rollout_rows(
    stage_id: int, step: int, rollouts: Iterable[Rollout], problem_ids: Mapping[Problem, int]
) -> tuple[list[Row], list[Row]]:
    """Rollouts without their texts, and their texts."""
    facts, texts = [], []
    for rollout in rollouts:
        place = {
            "stage_id": stage_id,
            "step": step,
            "group": rollout.group,
            "sample": rollout.sample,
        }
        graded = graded_columns(rollout.completion, rollout.score, rollout.facts)
        facts.append(
            {
                **place,
                **graded,
                "problem_id": problem_ids[rollout.problem],
                "advantage": rollout.advantage,
            }
        )
        texts.append({**place, "text": rollout.completion.text})
    return facts, texts


def sample_rows(
    samples: Iterable[EvaluationSample], problem_ids: Mapping[Problem, int], **of: int
) -> list[Row]:
    """Graded answers to held-out problems; ``of`` says whose they are."""
    return [
        {
            **of,
            "row": place,
            "problem_id": problem_ids[row.problem],
            "sample": row.sample,
            "text": row.completion.text,
            **graded_columns(row.completion, row.score, row.facts),
        }
        for place, row in enumerate(samples)
    ]


def graded_columns(completion: Completion, score: Score, facts: TraceFacts) -> Row:
    """The columns of ``schema.Graded``."""
    parts = finite(score.parts)
    return {
        "verdict": score.verdict.value,
        "reason": score.reason,
        "total": score.total,
        "accuracy": parts.get("accuracy"),
        "format": parts.get("format"),
        "language": parts.get("language"),
        "preference": parts.get("preference"),
        "parts": parts,
        "length_tokens": len(completion.token_ids),
        "truncated": completion.truncated,
        "language_share": facts.language_share,
        "reflective_words": facts.reflective_words,
        "gave_up": facts.gave_up,
        "attempts": facts.attempts,
        "repeated_attempts": facts.repeated_attempts,
        "trace_steps": facts.steps,
        "slips": facts.slips,
        "false_claim": facts.false_claim,
    }


def curated_row(stage_id: int, place: int, row: CuratedRow, problem_id: int) -> Row:
    """A candidate of a data set at its place in it."""
    return {
        "stage_id": stage_id,
        "row": place,
        "problem_id": problem_id,
        "reason": row.reason.value,
        "source": row.source,
        "original": row.original,
        "rewritten": row.rewritten,
    }
