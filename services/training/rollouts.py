"""Rollouts of a step: sampled, scored, compared within groups, laid out for TRL's loss.

With several processes each one samples and scores its own groups; rows, metrics and advantages are
those of all of them. A completion's random stream is named by its place in the whole step, so one
process and many sample the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from services.clock import WorkClock
from services.config import RL
from services.metrics import Scored, batch_metrics
from services.prompts import Format
from services.sampling import Sampler, SampleRequest, SamplingSettings
from services.sampling.random_streams import stream_seed
from services.traces import facts_of
from services.training.advantages import group_advantages
from services.training.job import RLJob, ScoreFunction
from services.training.processes import Processes
from services.types import Completion, Problem, Rollout, Score


class Made(NamedTuple):
    """The rollouts of one generation."""

    batch: dict[str, torch.Tensor]
    """Rows of this process in the form TRL's loss reads."""
    rollouts: list[Rollout]
    """Rows of all processes."""
    values: dict[str, float]
    """Metrics over them."""


def with_facts(problem: Problem, completion: Completion, score: Score, form: Format) -> Scored:
    """A scored completion with what can be counted in its trace."""
    facts = facts_of(
        problem, completion.text, score.verdict, truncated=completion.truncated, form=form
    )
    return Scored(problem, completion, score, facts)


class RolloutMaker:
    """Makes the rollouts of one stage."""

    def __init__(
        self,
        job: RLJob,
        tokenizer: Any,
        sampler: Sampler,
        score: ScoreFunction,
        clock: WorkClock,
        processes: Processes,
    ) -> None:
        self.job = job
        self.tokenizer = tokenizer
        self.sampler = sampler
        self.score = score
        self.clock = clock
        self.processes = processes

    def make(self, problems: Sequence[Problem], step: int, stream: str) -> Made:
        """Sample and score groups.

        Args:
            problems: Those of this process, one for each group.
            step: Optimizer steps so far; decides the length limit.
            stream: Names the random streams.
        """
        rl = self.job.settings
        limit = token_limit(rl, step)
        first = self.processes.index * len(problems)
        places = range(first, first + len(problems))
        before = self.clock.seconds.get("sampling", 0.0)
        groups = self._groups(problems, [f"{stream}/{step}/{place}" for place in places], limit)
        tokens = _tokens(groups)
        values: dict[str, float] = {}
        if rl.choice.rounds:
            more, values = self._choose(groups, places, step, stream, limit)
            tokens += more
        seconds = self.clock.seconds["sampling"] - before
        values = self._mean(values) | self._rate(tokens, seconds)
        return self._compared([row for group in groups for row in group], values)

    def _groups(
        self, problems: Sequence[Problem], streams: Sequence[str], limit: int
    ) -> list[list[Scored]]:
        """Scored completions of every problem."""
        rl = self.job.settings
        with self.clock.measure("sampling"):
            groups = self.sampler.sample(
                [
                    SampleRequest(
                        self.job.prompting.prompt(problem.question),
                        rl.group_size,
                        stream_seed(stream),
                    )
                    for problem, stream in zip(problems, streams, strict=True)
                ],
                SamplingSettings(rl.temperature, limit),
                lambda place, group: self.score.begin(problems[place], group),
            )
        with self.clock.measure("scoring"):
            scores = self.score(problems, groups, max_tokens=limit)
            return [
                [
                    with_facts(problem, completion, score, self.job.prompting.form)
                    for completion, score in zip(group, marks, strict=True)
                ]
                for problem, group, marks in zip(problems, groups, scores, strict=True)
            ]

    def _choose(
        self, groups: list[list[Scored]], places: range, step: int, stream: str, limit: int
    ) -> tuple[int, dict[str, float]]:
        """Replace groups outside the band by other questions, in place; new tokens and shares."""
        choice, spares = self.job.settings.choice, self.job.spares
        rates = [_pass_rate(group) for group in groups]
        too_hard = sum(rate < choice.min_pass_rate for rate in rates if rate is not None)
        too_easy = sum(rate > choice.max_pass_rate for rate in rates if rate is not None)
        replaced = tokens = 0
        everybody = len(groups) * self.processes.count
        for turn in range(choice.rounds):
            wrong = [
                i
                for i, group in enumerate(groups)
                if (rate := _pass_rate(group)) is not None
                and not choice.min_pass_rate <= rate <= choice.max_pass_rate
            ]
            if not wrong:
                break
            draws = [(step * choice.rounds + turn) * everybody + places[i] for i in wrong]
            fresh = self._groups(
                [spares[draw % len(spares)] for draw in draws],
                [f"{stream}/{step}/{places[i]}/{turn + 1}" for i in wrong],
                limit,
            )
            for i, group in zip(wrong, fresh, strict=True):
                groups[i] = group
            replaced += len(wrong)
            tokens += _tokens(fresh)
        return tokens, {
            "groups/too_hard": too_hard / len(groups),
            "groups/too_easy": too_easy / len(groups),
            "groups/replaced": replaced / len(groups),
        }

    def _mean(self, values: dict[str, float]) -> dict[str, float]:
        """Means over processes, which all have as many groups."""
        seen = self.processes.gather([values])
        return {name: sum(v[name] for v in seen) / len(seen) for name in values}

    def _rate(self, tokens: int, seconds: float) -> dict[str, float]:
        seen = self.processes.gather([(tokens, seconds)])
        return {"tokens_per_second": sum(t for t, _ in seen) / max(s for _, s in seen)}

    def _compared(self, mine: list[Scored], values: dict[str, float]) -> Made:
        """Advantages and metrics over the rows of all processes, the batch of this one."""
        rl = self.job.settings
        rows = self.processes.gather(mine)
        with self.clock.measure("scoring"):
            compared = group_advantages(
                [row.score.total for row in rows],
                [row.correct for row in rows],
                rl.group_size,
                rl.scale_rewards,
            )
        rollouts = [
            Rollout(*row, group=i // rl.group_size, sample=i % rl.group_size, advantage=advantage)
            for i, (row, advantage) in enumerate(
                zip(rows, compared.advantages.tolist(), strict=True)
            )
        ]
        values = {
            **batch_metrics(rows),
            "groups/dead_right": compared.dead_right,
            "groups/dead_wrong": compared.dead_wrong,
            **_sampled_entropy(rows),
            **values,
        }
        span = slice(self.processes.index * len(mine), (self.processes.index + 1) * len(mine))
        tokens = sum(len(row.completion.token_ids) for row in rows)
        return Made(self._tensors(mine, compared.advantages[span], tokens), rollouts, values)

    def _tensors(
        self, rows: list[Scored], advantages: torch.Tensor, tokens: int
    ) -> dict[str, torch.Tensor]:
        """The batch in the form TRL's loss reads; ``tokens`` are those of all processes."""
        encoded = {
            row.problem.question: self.tokenizer.encode(
                self.job.prompting.prompt(row.problem.question), add_special_tokens=False
            )
            for row in rows
        }
        pad = int(self.tokenizer.pad_token_id)
        prompt_ids, prompt_mask = _pad([encoded[r.problem.question] for r in rows], pad, left=True)
        completion_ids, completion_mask = _pad(
            [list(row.completion.token_ids) for row in rows], pad, left=False
        )
        batch = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": completion_mask,
            "advantages": advantages,
            "num_items_in_batch": torch.tensor(tokens),
        }
        if all(row.completion.logprobs for row in rows):
            sampled = [list(row.completion.logprobs) for row in rows]
            batch["sampling_per_token_logps"], _ = _pad(sampled, 0.0, left=False)
        return batch


def token_limit(rl: RL, step: int) -> int:
    """Longest completion at a step."""
    later = rl.max_new_tokens_later and step >= rl.max_new_tokens_later_from
    return rl.max_new_tokens_later if later else rl.max_new_tokens


def _tokens(groups: list[list[Scored]]) -> int:
    return sum(len(row.completion.token_ids) for group in groups for row in group)


def _pass_rate(group: list[Scored]) -> float | None:
    """Share of right answers; None where a preference judges and nothing is right or wrong."""
    if group[0].problem.kind == "general":
        return None
    return sum(row.correct for row in group) / len(group)


def _sampled_entropy(rows: Sequence[Scored]) -> dict[str, float]:
    """Mean surprise of the sampled tokens: an estimate of entropy that dead groups are part of."""
    values = [value for row in rows for value in row.completion.logprobs]
    return {"entropy/sampled": -sum(values) / len(values)} if values else {}


def _pad(
    rows: Sequence[Sequence[float]], value: float, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """A padded tensor and its mask, both ``(rows, longest)``."""
    longest = max(map(len, rows))
    values = torch.full((len(rows), longest), value)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        span = slice(longest - len(row), longest) if left else slice(0, len(row))
        values[place, span] = torch.tensor(row, dtype=values.dtype)
        mask[place, span] = 1
    return values, mask
