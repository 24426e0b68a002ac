"""Held-out accuracy while training: is what the reward pays for also what is wanted?

Always the same problems and the same random streams, so that two measurements differ by the policy
alone. Nothing of training is touched: sampling draws from streams of its own, and the score
function starts and ends empty.
"""

from collections.abc import Sequence

from services.clock import WorkClock
from services.sampling import Sampler, SampleRequest, SamplingSettings
from services.sampling.random_streams import stream_seed
from services.training.job import RLJob, ScoreFunction
from services.training.processes import Processes
from services.training.rollouts import token_limit
from services.types import Problem, Verdict


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

    def measure(self, step: int) -> dict[str, float]:
        """Accuracy and mean length on the held-out problems after ``step`` optimizer steps."""
        with self.clock.measure("evaluating"):
            seen = self.processes.gather(self._results(step))
        return {
            "held_out/accuracy": sum(right for right, _ in seen) / len(seen),
            "held_out/length": sum(length for _, length in seen) / len(seen),
        }

    def _results(self, step: int) -> list[tuple[bool, int]]:
        """Whether each completion of this process is right, and its length."""
        if not self._mine:
            return []
        rl = self.job.settings
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
            (score.verdict is Verdict.CORRECT, len(completion.token_ids))
            for group, marks in zip(groups, scores, strict=True)
            for completion, score in zip(group, marks, strict=True)
        ]
