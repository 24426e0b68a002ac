"""Try before you train: what the reward layer says, before anything learns from it.

``verify_lines`` and ``reward_lines`` read JSON lines and write one JSON line each, for the command
line. ``dry_run`` scores a few samples of the base model and says where training would be blind: a
reward part that never changes, or a reference that does not verify against itself.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from services.config import RewardWeights
from services.errors import ProblemError, RewardError
from services.prompts import Format
from services.rewards import NO_RULE
from services.scoring import ScoringPool
from services.types import Judgement, Problem, Score, Verdict
from services.verifiers import verifier_for
from services.verifiers.references import reference_answer

_WINDOW = 512
"""Lines scored at a time; what bounds memory on endless input."""
_MEND = (
    'Write {"kind": "math", "problem": "…", "gold": "…", "completion": "…", "language": "en"} '
    "on one line"
)


class _Line(NamedTuple):
    problem: Problem
    completion: str


def verify_lines(lines: Iterable[str]) -> Iterator[str]:
    """Verdicts of JSON lines, one line each. A completion may be whole, or the answer alone.

    Raises:
        ProblemError: A line is not a problem with a completion; the message names the line.
    """
    with ScoringPool() as pool:
        for window in _windows(lines):
            futures = [pool.judge(problem, _whole(completion)) for problem, completion in window]
            for future in futures:
                yield _as_json(_accuracy_alone(future.result()))


def reward_lines(
    lines: Iterable[str], weights: RewardWeights, *, form: Format = "r1"
) -> Iterator[str]:
    """Rewards of JSON lines, one line each, by the formula of a recipe.

    Raises:
        ProblemError: A line is not a problem with a completion; the message names the line.
    """
    with ScoringPool(form=form) as pool:
        for window in _windows(lines):
            yield from map(_as_json, pool.score_all(window, weights=weights))


def _accuracy_alone(judgement: Judgement) -> Score:
    if judgement is NO_RULE:
        return Score(*judgement, {}, 0.0)
    if judgement.verdict is Verdict.UNSCORABLE:
        return Score(*judgement, {}, None)
    accuracy = float(judgement.verdict is Verdict.CORRECT)
    return Score(*judgement, {"accuracy": accuracy}, accuracy)


def _whole(completion: str) -> str:
    return completion if "<answer>" in completion else f"<answer>{completion}</answer>"


def _windows(lines: Iterable[str]) -> Iterator[list[_Line]]:
    rows = (_read(line, number) for number, line in enumerate(lines, start=1) if line.strip())
    while window := list(islice(rows, _WINDOW)):
        yield window


def _read(line: str, number: int) -> _Line:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"line {number} is not JSON: {error}", _MEND) from error
    if not isinstance(row, dict):
        raise ProblemError(f"line {number} is not a JSON object", _MEND)
    kind = _text(row, "kind", number)
    if kind != "general":
        try:
            verifier_for(kind)
        except ProblemError as error:
            raise ProblemError(f"line {number}: {error.what}", error.mend) from error
    gold = row.get("gold", "" if kind == "general" else None)
    if gold is None or isinstance(gold, bool):
        raise ProblemError(f"line {number} has no gold", _MEND)
    problem = Problem(
        id=f"line-{number}",
        kind=kind,
        question=_text(row, "problem", number, default=""),
        gold=gold if isinstance(gold, str) else json.dumps(gold),
        language=_text(row, "language", number, default="en"),
    )
    return _Line(problem, _text(row, "completion", number))


def _text(row: dict[str, Any], key: str, number: int, default: str | None = None) -> str:
    value = row.get(key, default)
    if not isinstance(value, str):
        raise ProblemError(f"line {number} has no {key}, or one that is no text", _MEND)
    return value


def _as_json(score: Score) -> str:
    row = {
        "verdict": score.verdict.value,
        "parts": dict(score.parts),
        "total": score.total,
        "reason": score.reason,
    }
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace").decode()


class ConstantPart(NamedTuple):
    """A part of the reward that says the same of every sample."""

    name: str
    value: float
    examples: tuple[str, ...]
    """Some completions, with the reason of their score."""

    @property
    def is_blind(self) -> bool:
        """Whether there is nothing to learn where there should be.

        A format or language that is always perfect is no fault: there is nothing left to learn.
        """
        return self.name == "accuracy" or self.value < 1.0


class FaultyReference(NamedTuple):
    """A reference that its own verifier does not accept."""

    problem: Problem
    judgement: Judgement


class DryRunReport(NamedTuple):
    """What a few samples say about a reward before training on it."""

    completions: int
    unscorable: int
    unscorable_reason: str
    """Of the first such completion."""
    constant: tuple[ConstantPart, ...]
    faulty: tuple[FaultyReference, ...]

    @property
    def fault(self) -> RewardError | None:
        """The first reason not to train, with an example; None if every part can teach."""
        if self.faulty:
            problem, (_, reason) = self.faulty[0]
            return RewardError(
                f"references that do not verify against themselves: {len(self.faulty)}, such as "
                f"{problem.gold[:80]!r} of {problem.id} ({problem.kind}): {reason}",
                "Mend or drop these problems, or give them another kind",
            )
        if self.unscorable == self.completions:
            return RewardError(
                f"none of {self.completions} samples can be scored: {self.unscorable_reason}",
                "Give the problems references and a kind that fit",
            )
        blind = [part for part in self.constant if part.is_blind]
        if blind:
            part = blind[0]
            return RewardError(
                f"the reward part {part.name} is {part.value:g} for all {self.completions} samples "
                f"of the base model, such as: {' | '.join(part.examples[:1])}",
                f"Choose problems or a base model on which it varies, give it weight 0 "
                f"({part.name} under weights), or train all the same with --set check_rewards=warn",
            )
        return None


def dry_run(
    problems: Sequence[Problem],
    completions_per_problem: Sequence[Sequence[str]],
    weights: RewardWeights,
    *,
    form: Format = "r1",
    examples: int = 3,
) -> DryRunReport:
    """Score samples of the base model, and every reference against itself.

    Args:
        problems: Some problems of the training split.
        completions_per_problem: Samples of each.
        weights: The recipe's; parts of weight 0 may be as constant as they like.
        form: The format that the prompts asked for.
        examples: How many completions to quote for a constant part.
    """
    rows = [
        (problem, text)
        for problem, texts in zip(problems, completions_per_problem, strict=True)
        for text in texts
    ]
    with ScoringPool(form=form) as pool:
        scores = pool.score_all(rows, weights=weights)
    quoted = [f"{text[:300]!r} ({row.reason})" for (_, text), row in zip(rows, scores, strict=True)]
    constant = []
    for name, weight in weights:
        values = [score.parts[name] for score in scores if name in score.parts]
        if weight and len(values) > 1 and len(set(values)) == 1:
            constant.append(ConstantPart(name, values[0], tuple(quoted[:examples])))
    unscorable = [score.reason for score in scores if score.total is None]
    return DryRunReport(
        completions=len(rows),
        unscorable=len(unscorable),
        unscorable_reason=next(iter(unscorable), ""),
        constant=tuple(constant),
        faulty=check_references(problems),
    )


def check_references(problems: Sequence[Problem]) -> tuple[FaultyReference, ...]:
    """The problems whose reference does not verify against itself."""
    with ScoringPool() as pool:
        asked = [
            (problem, pool.judge(problem, f"<answer>{answer}</answer>"))
            for problem in problems
            if (answer := reference_answer(problem)) is not None
        ]
        judged = [FaultyReference(problem, future.result()) for problem, future in asked]
    return tuple(row for row in judged if row.judgement.verdict is not Verdict.CORRECT)
