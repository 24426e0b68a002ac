"""Try before you train: where would training on this reward be blind?

``dry_run`` scores a few samples of the base model and says so: a reward part that never changes,
or a reference that does not verify against itself.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from services.config import RL
from services.errors import RewardError
from services.prompts import Format
from services.scoring import ScoringPool
from services.types import Completion, Judgement, Problem, Score, Verdict
from services.verifiers.references import reference_answer

_QUOTED: Final = 3
_LONGEST_QUOTE: Final = 160


class ConstantPart(NamedTuple):
    """A part of the reward that says the same of every sample."""

    name: str
    value: float
    best: float
    """The value at which there is nothing left to learn: 1 of a share, 0 of a penalty."""
    examples: tuple[str, ...]
    """Some completions, with the reason of their score."""

    @property
    def is_blind(self) -> bool:
        """Whether there is nothing to learn where there should be.

        A format or language that is always perfect is no fault; problems that the base always
        solves are.
        """
        return self.name == "accuracy" or self.value < self.best


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
        """The first reason not to train, with examples; None if every part can teach."""
        if self.faulty:
            examples = " | ".join(
                f"{problem.gold[:_LONGEST_QUOTE]!r} of {problem.id} ({problem.kind}): {reason}"
                for problem, (_, reason) in self.faulty[:_QUOTED]
            )
            return RewardError(
                "references that do not verify against themselves: "
                f"{len(self.faulty)}, such as {examples}",
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
                f"of the base model, such as: {' | '.join(part.examples)}",
                f"Choose problems or a base model on which it varies, give {part.name} the weight "
                "0, or train all the same with --set check_rewards=warn",
            )
        return None


def dry_run(
    problems: Sequence[Problem],
    groups: Sequence[Sequence[Completion]],
    settings: RL,
    *,
    form: Format = "r1",
) -> DryRunReport:
    """Score samples of the base model by the formula of a stage.

    Args:
        problems: Problems of the training split; the reference of each is checked.
        groups: Samples of the first of them.
        settings: The stage; parts of weight 0 may be as constant as they like.
        form: The format that the prompts asked for.
    """
    rows = [
        (problem, completion)
        for problem, group in zip(problems, groups, strict=False)
        for completion in group
    ]
    with ScoringPool(form=form) as pool:
        for problem, completion in rows:
            pool.submit(problem, completion.text)
        scores = pool.collect(
            weights=settings.weights,
            target_language=settings.target_language or None,
            shaping=settings.shaping,
            tokens=[len(completion.token_ids) for _, completion in rows],
            max_tokens=settings.max_new_tokens,
        )
    apart = max(len(rows) // _QUOTED, 1)  # examples of different problems
    quoted = [
        f"{completion.text[:_LONGEST_QUOTE]!r} ({scored.reason})"
        for (_, completion), scored in zip(rows[::apart], scores[::apart], strict=True)
    ][:_QUOTED]
    unscorable = [scored.reason for scored in scores if scored.total is None]
    return DryRunReport(
        completions=len(rows),
        unscorable=len(unscorable),
        unscorable_reason=next(iter(unscorable), ""),
        constant=tuple(_constant_parts(scores, settings, tuple(quoted))),
        faulty=check_references(problems),
    )


def _constant_parts(
    scores: Sequence[Score], settings: RL, examples: tuple[str, ...]
) -> Iterator[ConstantPart]:
    weights = settings.weights.model_dump() | settings.shaping.model_dump()
    penalties = type(settings.shaping).model_fields
    for name in dict.fromkeys(part for scored in scores for part in scored.parts):
        values = [scored.parts[name] for scored in scores if name in scored.parts]
        if weights[name] and len(values) > 1 and len(set(values)) == 1:
            best = 0.0 if name in penalties else 1.0
            yield ConstantPart(name, values[0], best, examples)


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
