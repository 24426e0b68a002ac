"""The parts of a recipe that watch over reinforcement learning and choose its questions."""

from typing import Annotated, Literal

from pydantic import Field

from services.config_base import Count, Natural, Positive, Settings, Share

GuardName = Literal[
    "non_finite", "entropy", "kl", "length", "truncation", "dead_right", "dead_wrong", "mismatch",
    "held_out",
]  # fmt: skip
GuardPolicy = Literal["off", "warn", "pause", "rollback"]


class Guards(Settings):
    """What is watched during a reinforcement-learning stage, and what happens when it goes wrong.

    Guards judge the mean of the last ``window`` steps; ratios are to the mean of the first
    ``window`` steps. A guard that has tripped says so once, and again only after it has cleared.
    """

    policy: GuardPolicy = "warn"
    """``warn`` raises an alarm and goes on; ``pause`` saves a checkpoint and stops the stage, and
    running it again goes on from there; ``rollback`` returns to the last good checkpoint, with
    other rollouts and a smaller learning rate."""
    policies: dict[GuardName, GuardPolicy] = Field(default={})
    """Guards that follow another policy than ``policy``."""
    window: Count = 8
    """Steps whose mean is judged; nothing trips in the first two windows but ``non_finite``."""
    entropy_low: Share = 0.1
    """Entropy below this share of the first steps' has collapsed."""
    entropy_high: Annotated[float, Field(gt=1.0)] = 4.0
    """Entropy above this multiple of the first steps' has exploded."""
    kl: Positive = 1.0
    """Most KL to the reference, in nats per token."""
    length_low: Share = 0.25
    """Mean length below this share of the first steps' has collapsed."""
    truncated: Share = 0.5
    """Share of truncated completions that is a runaway, if it is twice that of the first steps."""
    dead: Share = 0.95
    """Share of groups that teach nothing, for all-right and for all-wrong groups each."""
    mismatch: Positive = 0.01
    """Most KL between sampler and trainer, in nats per token."""
    held_out_drop: Share = 0.05
    """How far held-out accuracy may fall below its best while the training reward rises; needs
    ``eval_every``."""
    max_rollbacks: Natural = 2
    """After so many, ``rollback`` pauses."""
    rollback_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """What a rollback multiplies the learning rate by."""


class PromptChoice(Settings):
    """Online choice of questions by pass rate; off by default, as the paper has none."""

    rounds: Natural = 0
    """How often a step replaces groups that lie outside the band by other questions; 0 never."""
    min_pass_rate: Share = 0.2
    """Groups with a smaller share of right answers are too hard."""
    max_pass_rate: Share = 0.8
    """Groups with a larger share are too easy."""
