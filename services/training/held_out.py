"""Held-out accuracy while training: is what the reward pays for also what is wanted?

Always the same problems and the same random streams, so that two measurements differ by the policy
alone. Nothing of training is touched: sampling draws from streams of its own, and the score
function starts and ends empty.
"""

from collections.abc import Sequence
from operator import itemgetter
from statistics import fmean

from services.clock import WorkClock
from services.metrics import Scored, majority_is_right
from services.sampling import Sampler, SampleRequest, SamplingSettings
from services.sampling.random_streams import stream_seed
from services.training.job import RLJob, ScoreFunction
from services.training.processes import Processes
from services.training.rollouts import token_limit, with_facts
from services.types import EvaluationSample, Problem


class HeldOut:
    """Measures one stage's policy; the problems are shared out over the processes."""

    def __init__(
        self,
        job: RLJob,
        sampler: Sampler,
        score: ScoreFunction,
        clock: WorkClock,
        processes: Processes,
    ) -> None:
        self.job = job
        self.sampler = sampler
        self.score = score
        self.clock = clock
        self.processes = processes
        self._mine = list(enumerate(job.held_out))[processes.index :: processes.count]

    def measure(self, step: int) -> tuple[dict[str, float], list[EvaluationSample]]:
        """What the policy makes of the held-out problems after ``step`` optimizer steps.

        Returns:
            Mean correctness and length and, of k > 1 answers to each problem, cons@k; and the
            answers themselves, problem by problem.
        """
        with self.clock.measure("evaluating"):
            placed = sorted(self.processes.gather(self._results(step)), key=itemgetter(0))
        groups = [group for _, group in placed]
        rows = [row for group in groups for row in group]
        values = {
            "held_out/accuracy": fmean(row.correct for row in rows),
            "held_out/length": fmean(len(row.completion.token_ids) for row in rows),
        }
        form = self.job.prompting.form
        if self.job.settings.eval_samples > 1:
            values["held_out/cons"] = fmean(majority_is_right(g, form) for g in groups)
        return values, [
            EvaluationSample(row.problem, sample, row.completion, row.score, row.facts)
            for group in groups
            for sample, row in enumerate(group)
        ]

    def _results(self, step: int) -> list[tuple[int, list[Scored]]]:
        """Place among all problems and scored answers, of the problems of this process."""
        if not self._mine:
            return []
        rl, form = self.job.settings, self.job.prompting.form
        problems: Sequence[Problem] = [problem for _, problem in self._mine]
        groups = self.sampler.sample(
            [
                SampleRequest(
                    self.job.prompting.prompt(problem.question),
                    rl.eval_samples,
                    stream_seed(f"{self.job.stream}/held-out/{place}"),
                )
                for place, problem in self._mine
            ],
            SamplingSettings(rl.temperature, token_limit(rl, step)),
        )
        scores = self.score(problems, groups)
        return [
            (place, [with_facts(problem, *one, form) for one in zip(group, marks, strict=True)])
            for (place, problem), group, marks in zip(self._mine, groups, scores, strict=True)
        ]
