"""The vocabulary: frozen records that cross the seams between rooms. Imports nothing of ours.

Words are those of the field. A *rollout* is one sampled completion with its score; the completions
of one problem in one step are a *group*; the *advantage* is what a group says about each member
(GRPO: reward minus group mean, over group deviation). Stages hand each other references (uri and
digest), never rows or weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

Kind = str
"""How a problem is verified: ``countdown``, ``math``, ``exact``, ``choice``, ``general``, …"""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with what is needed to grade an answer to it."""

    id: str
    kind: Kind
    question: str
    """The bare question, without a prompt template."""
    gold: str
    """The reference, in the form that the verifier of ``kind`` reads."""
    language: str
    """Language of the question as an ISO 639-1 code; the target of language consistency."""
    level: int = 0
    """Difficulty; 0 where the source has none."""


class Verdict(StrEnum):
    """What a verifier may say. Unscorable is not wrong: such rows leave the group statistics."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNSCORABLE = "unscorable"


class Judgement(NamedTuple):
    """A verdict and why."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """What the reward layer says of one completion."""

    verdict: Verdict
    reason: str
    parts: Mapping[str, float]
    """Unweighted parts by name: ``accuracy``, ``format``, ``language``, ``helpfulness``, …"""
    total: float | None
    """The weighted sum, or None if the row is unscorable."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled sequence, prompt excluded."""

    text: str
    token_ids: tuple[int, ...]
    """Sampled ids, including the end-of-sequence token where there is one."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each sampled token at the sampling temperature, aligned with
    ``token_ids``; empty if the engine cannot say."""
    truncated: bool
    """True if the length limit ended it."""


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """Countable facts about one chain of thought."""

    reflective_words: int
    language_share: float
    """Share of words in the target language, 0…1; 1.0 where there are no words."""
    gave_up: bool = False
    attempts: int = 0
    repeated_attempts: int = 0
    steps: int = 0
    slips: int = 0
    """Arithmetic or copying errors among ``steps``."""
    false_claim: bool = False
    """Claims success on a wrong value."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One row of training experience, as it is stored."""

    problem: Problem
    completion: Completion
    score: Score
    facts: TraceFacts
    group: int
    """Which group of its step, from 0."""
    sample: int
    """Which member of its group, from 0."""
    advantage: float


class DropReason(StrEnum):
    """Why curation left a sample out; ``KEPT`` means it did not."""

    KEPT = "kept"
    WRONG = "wrong answer"
    UNSCORABLE = "unscorable"
    FORMAT = "format"
    MIXED_LANGUAGE = "mixed language"
    REPETITION = "repetition"
    UNREADABLE = "unreadable"
    DUPLICATE = "duplicate"
    QUOTA = "enough of this problem"
    REVIEWER = "rejected in review"


@dataclass(frozen=True, slots=True)
class CuratedRow:
    """One candidate of a data set, kept or dropped, with where it came from."""

    problem: Problem
    original: str
    """The completion as it was sampled or written."""
    rewritten: str
    """The completion as it goes into training; empty if dropped."""
    reason: DropReason
    source: str
    """Digest of the checkpoint it was sampled from, or the name of a written source."""


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A finished model: a Hugging Face folder of safetensors."""

    stage: str
    path: str
    digest: str
    """Over the weights and the configuration; the same training gives the same digest."""
    parents: tuple[str, ...] = ()
    """Digests of what it was made from: checkpoints and data sets."""


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A finished data set: a folder with ``rows.jsonl``."""

    stage: str
    path: str
    digest: str
    rows: int
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluationSample:
    """One graded completion of an evaluation."""

    problem: Problem
    sample: int
    completion: Completion
    score: Score
    facts: TraceFacts


@dataclass(frozen=True, slots=True)
class Metrics:
    """Named numbers of one training step, namespaced ``reward/accuracy``, ``length/mean`` …."""

    step: int
    values: Mapping[str, float] = field(default_factory=dict)


StageState = Literal["running", "finished", "failed", "reused"]
