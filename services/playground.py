"""Trying models by hand: a question to a registered model, and what the reward says of the answer.

Bounded on purpose, because a page waits for it: few samples, few tokens, and an end by the clock.
A model is loaded once by its digest; whoever keeps ``Talker`` objects keeps the weights in memory.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from services.config import Engine, Problems, RewardWeights
from services.errors import ArtifactError, ProblemError
from services.prompts import parse, r1_prompt
from services.smallworld.phrases import LANGUAGES
from services.tasks.sources import held_out_problems
from services.types import Completion, Problem, Score, TraceFacts

if TYPE_CHECKING:
    from services.sampling.local import LocalSampler

MAX_TOKENS: Final = 1024
MAX_SAMPLES: Final = 4
MAX_SECONDS: Final = 60.0
MAX_QUESTION_CHARACTERS: Final = 4000
KINDS: Final = ("general", "countdown", "exact", "math", "choice")
"""How an answer can be verified here: by nothing, or by rules that run no program."""
WEIGHTS: Final = RewardWeights(language=1.0)
"""All rule parts are shown; this only decides how they are summed."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what is known of the answer."""

    text: str
    kind: str = "general"
    """How an answer is verified; ``general`` where nothing can be verified."""
    gold: str = ""
    language: str = "en"

    def problem(self) -> Problem:
        """As verifiers take it."""
        return Problem("playground", self.kind, self.text, self.gold, self.language)


class Reply(NamedTuple):
    """One answer of a model."""

    think: str
    """Untrusted, like all of the text: show it as text."""
    answer: str
    text: str
    """The whole completion."""
    score: Score
    facts: TraceFacts
    tokens: int
    truncated: bool


class Asked(NamedTuple):
    """The answers of one model, and how long it took."""

    replies: list[Reply]
    seconds: float
    tokens_per_second: float


class Talker:
    """A loaded model that answers; several pages may share it, one at a time samples."""

    def __init__(self, sampler: "LocalSampler") -> None:
        """Answer with ``sampler``."""
        self._sampler = sampler
        self._turn = threading.Lock()

    def ask(
        self,
        question: Question,
        *,
        samples: int,
        temperature: float,
        max_new_tokens: int,
        seed: int,
        seconds: float = MAX_SECONDS,
    ) -> Asked:
        """Sample and score answers to one question.

        Args:
            question: What to ask, in the R1-Zero template.
            samples: At most ``MAX_SAMPLES``.
            temperature: Of the samples.
            max_new_tokens: At most ``MAX_TOKENS``.
            seed: The same one gives the same answers.
            seconds: After so long the sampling is given up.

        Raises:
            ProblemError: The question is empty or too long, or its reference cannot be read.
            ArtifactError: It took too long.
        """
        from services.sampling import SampleRequest, SamplingSettings

        if not question.text.strip() or len(question.text) > MAX_QUESTION_CHARACTERS:
            raise ProblemError(
                "there is no question, or a very long one",
                f"Write between 1 and {MAX_QUESTION_CHARACTERS} characters",
            )
        settings = SamplingSettings(temperature, min(max_new_tokens, MAX_TOKENS))
        request = SampleRequest(r1_prompt(question.text), min(samples, MAX_SAMPLES), seed)
        with self._turn:
            started = time.perf_counter()
            try:
                with _deadline(self._sampler, seconds):
                    (group,) = self._sampler.sample([request], settings)
            except _OutOfTimeError:
                raise ArtifactError(
                    f"no answer within {seconds:.0f} s", "Ask for fewer tokens or samples"
                ) from None
            taken = time.perf_counter() - started
        sampled = sum(len(completion.token_ids) for completion in group)
        return Asked(score_replies(question, group), taken, sampled / max(taken, 1e-9))


def score_replies(question: Question, group: Sequence[Completion]) -> list[Reply]:
    """What the rules of the reward say of some completions.

    Raises:
        ProblemError: No verifier has the kind, or it cannot read the reference.
    """
    from services.scoring import ScoringPool
    from services.traces import facts_of

    problem = question.problem()
    try:
        with ScoringPool(1) as pool:
            scores = pool.score_all([(problem, row.text) for row in group], weights=WEIGHTS)
        facts = [
            facts_of(problem, row.text, score.verdict, truncated=row.truncated)
            for row, score in zip(group, scores, strict=True)
        ]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ProblemError):
            raise
        raise ProblemError(
            f"the reference is not one that {question.kind} can read: {error}",
            "Mend it, or verify nothing",
        ) from error
    return [
        Reply(*parse(row.text)[:2], row.text, score, fact, len(row.token_ids), row.truncated)
        for row, score, fact in zip(group, scores, facts, strict=True)
    ]


def load_talker(folder: Path) -> Talker:
    """Load a registered model's folder; safetensors only, no code of its own.

    Raises:
        ArtifactError: The folder is no loadable checkpoint.
        RegistryError: It holds a pickle or no safetensors.
    """
    from services.evaluation import load_sampler
    from services.versions import require_safetensors

    require_safetensors(folder)
    return Talker(load_sampler(folder, Engine(batch_size=MAX_SAMPLES)))


def puzzle(level: int, language: str, seed: int) -> Question:
    """A countdown puzzle of the small world, with the reference that verifies an answer.

    Args:
        level: How many numbers it has, 2 to 6.
        language: One of the small world's, ``en`` or ``zh``.
        seed: The same one gives the same puzzle.
    """
    problems = held_out_problems(Problems(levels=(level,)), seed, len(LANGUAGES))
    found = next(problem for problem in problems if problem.language == language)
    return Question(found.question, found.kind, found.gold, found.language)


class _OutOfTimeError(Exception):
    """The clock ran out in the middle of sampling."""


@contextmanager
def _deadline(sampler: "LocalSampler", seconds: float) -> Iterator[None]:
    """Within the block every forward pass of the sampler looks at the clock first."""
    until = time.monotonic() + seconds

    def look(*_: object) -> None:
        if time.monotonic() > until:
            raise _OutOfTimeError

    model: Any = sampler.model.base_model
    handle = model.register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
