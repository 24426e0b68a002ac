"""Numbers of a batch of completions: one training step, or one level of an evaluation.

Every curve of the dashboard and every column of the stage table is computed here, once, from
scored completions. Shares are 0…1, lengths are tokens. A number without a population (the length of
right answers where none is right) is left out rather than given as zero. Unscorable completions are
counted, and count neither as right nor as wrong.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean, quantiles
from typing import NamedTuple

from services.prompts import Format, final_answer, parse
from services.reflection import RECHECKING, REFLECTIVE_WORDS, reflective_form_counts
from services.types import Completion, Problem, Score, TraceFacts, Verdict


class Scored(NamedTuple):
    """What all metrics are computed from."""

    problem: Problem
    completion: Completion
    score: Score
    facts: TraceFacts

    @property
    def correct(self) -> bool:
        """Whether the answer is right."""
        return self.score.verdict is Verdict.CORRECT

    @property
    def scorable(self) -> bool:
        """Whether the verifier could say anything of the answer."""
        return self.score.verdict is not Verdict.UNSCORABLE


def majority_is_right(group: Sequence[Scored], form: Format = "r1") -> bool:
    """Whether the most frequent answer of a group is right; the earliest wins a tie."""
    answers = [final_answer(parse(row.completion.text, form).answer) for row in group]
    favourite, _ = Counter(answers).most_common(1)[0]
    return group[answers.index(favourite)].correct


def batch_metrics(rows: Sequence[Scored]) -> dict[str, float]:
    """Metrics of scored completions under the names used everywhere."""
    reasoning = [row for row in rows if row.problem.kind != "general"]
    values: dict[str, float] = {
        **_rewards(rows),
        **_lengths("length/mean", rows),
        "truncated": fmean(row.completion.truncated for row in rows),
        "language/consistency": fmean(row.facts.language_share for row in rows),
        "language/mixed": fmean(row.facts.language_share < 1.0 for row in rows),
        "unscorable": fmean(not row.scorable for row in rows),
        "unscorable/rows": float(sum(not row.scorable for row in rows)),
    }
    if reasoning:
        values |= _reasoning(reasoning)
    return values


def _rewards(rows: Sequence[Scored]) -> dict[str, float]:
    parts: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.score.parts.items():
            parts.setdefault(f"reward/{name}", []).append(value)
        if row.score.total is not None:
            parts.setdefault("reward/total", []).append(row.score.total)
    return {name: fmean(values) for name, values in parts.items()}


def _lengths(mean: str, rows: Iterable[Scored]) -> dict[str, float]:
    """Mean, 10th and 90th percentile of lengths; ``length/right`` has ``length/right_p10``."""
    lengths = [len(row.completion.token_ids) for row in rows]
    if not lengths:
        return {}
    deciles = quantiles(lengths, n=10, method="inclusive") if len(lengths) > 1 else lengths * 9
    stem = mean.removesuffix("mean") if mean.endswith("/mean") else f"{mean}_"
    return {
        mean: fmean(lengths),
        f"{stem}p10": float(deciles[0]),
        f"{stem}p90": float(deciles[-1]),
    }


def _reflection(rows: Sequence[Scored]) -> dict[str, float]:
    """Words of reflection per completion: all, each in either language, and those of checking."""
    forms = Counter[str]()
    for row in rows:
        forms.update(reflective_form_counts(row.completion.text))
    values = {"reflective/mean": fmean(row.facts.reflective_words for row in rows)}
    for word, (english, chinese) in REFLECTIVE_WORDS.items():
        values[f"reflective/en/{word}"] = forms[english] / len(rows)
        values[f"reflective/zh/{word}"] = forms[chinese] / len(rows)
    values["reflective/rechecking"] = sum(
        values[f"reflective/{language}/{word}"] for language in ("en", "zh") for word in RECHECKING
    )
    return values


def _reasoning(rows: Sequence[Scored]) -> dict[str, float]:
    """What only reasoning problems have: accuracy, search and reflection."""
    scorable = [row for row in rows if row.scorable]
    steps = sum(row.facts.steps for row in rows)
    attempts = sum(row.facts.attempts for row in rows)
    values = {
        **_reflection(rows),
        **_lengths("length/right", (row for row in scorable if row.correct)),
        **_lengths("length/wrong", (row for row in scorable if not row.correct)),
        "gives_up": fmean(row.facts.gave_up for row in rows),
        "false_claims": fmean(row.facts.false_claim for row in rows),
        "attempts/mean": attempts / len(rows),
    }
    if scorable:
        values["accuracy"] = fmean(row.correct for row in scorable)
    if steps:
        values["slips"] = sum(row.facts.slips for row in rows) / steps
    if attempts:
        values["repeated_attempts"] = sum(row.facts.repeated_attempts for row in rows) / attempts
    for level in sorted({row.problem.level for row in rows if row.problem.level}):
        of_level = [row for row in rows if row.problem.level == level]
        if any(row.scorable for row in of_level):
            values[f"accuracy/level_{level}"] = fmean(
                row.correct for row in of_level if row.scorable
            )
        values[f"length/level_{level}"] = fmean(len(r.completion.token_ids) for r in of_level)
        values[f"false_claims/level_{level}"] = fmean(r.facts.false_claim for r in of_level)
    return values
