"""Sampling completions: one protocol, several engines.

``local.LocalSampler`` decodes in this process and is made for small machines. Engines differ in
speed, never in meaning: a request names its own random stream, so a completion does not depend on
what else is in the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.types import Completion


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How to draw."""

    temperature: float
    max_new_tokens: int
    top_p: float = 1.0
    """Nucleus; anything below 1 makes the returned log-probabilities those of another
    distribution than the policy's, so reinforcement learning refuses it."""


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One prompt and how many completions of it are wanted."""

    prompt: str
    samples: int
    seed: int
    """Sample i of the request draws from the stream (seed, i) and nothing else."""


GroupDone = Callable[[int, Sequence[Completion]], None]
"""Told the place of a request and its completions as soon as they are there."""


class Sampler(Protocol):
    """An engine that completes prompts."""

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        group_done: GroupDone | None = None,
    ) -> list[list[Completion]]:
        """Completions per request, in the order asked for.

        ``group_done`` hears of each group while others still decode, so that scoring can overlap.
        """
        ...
