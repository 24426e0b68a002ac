"""What the training page draws: which metrics make a figure, and what they mean."""

from collections.abc import Mapping
from typing import NamedTuple


class Figure(NamedTuple):
    """One chart: metrics that share an axis."""

    title: str
    axis: str
    """What the vertical axis shows, with its unit."""
    series: Mapping[str, str]
    """Metric to the word for it."""
    definition: str
    """What the metric is, as the tooltip says it."""
    band: tuple[str, str] | None = None
    """Metrics between which a band is filled."""
    share: bool = False
    """Whether values lie in 0…1."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics it needs."""
        return (*self.series, *(self.band or ()))


FIGURES = (
    Figure(
        "Reward",
        "reward per completion",
        {"reward/total": "total"},
        "Mean weighted sum of all reward parts over the completions of a step",
    ),
    Figure(
        "Reward by part",
        "part, unweighted",
        {
            "reward/accuracy": "accuracy",
            "reward/format": "format",
            "reward/language": "language",
            "reward/helpfulness": "helpfulness",
            "reward/safety": "safety",
            "reward/preference": "preference",
        },
        "Mean of one reward part before weighting: right answer, <think>/<answer> format, words "
        "in the question's language, preference models",
    ),
    Figure(
        "Accuracy",
        "share of right answers",
        {"accuracy": "accuracy"},
        "Share of sampled completions whose answer is right, on training questions",
        share=True,
    ),
    Figure(
        "Response length",
        "tokens per completion",
        {
            "length/mean": "mean (band: p10–p90)",
            "length/right": "right answers",
            "length/wrong": "wrong answers",
        },
        "Sampled tokens of a completion, thinking and answer; the band holds the middle 80 %",
        band=("length/p10", "length/p90"),
    ),
    Figure(
        "Language consistency",
        "share of words",
        {"language/consistency": "consistency"},
        "Share of the words of the thinking that are in the language of the question",
        share=True,
    ),
    Figure(
        "Reflection",
        "words per completion",
        {"reflective/mean": "reflective words"},
        "Mean count of wait, mistake, however, but, retry, error, verify, wrong, evaluate, check "
        "and their Chinese forms in a completion",
    ),
    Figure(
        "What goes wrong",
        "share of completions",
        {
            "gives_up": "gives up",
            "false_claims": "false claims",
            "truncated": "cut off at the limit",
        },
        "Share of completions that stop searching without an answer, claim success on a wrong "
        "value, or end at the length limit",
        share=True,
    ),
    Figure(
        "Entropy",
        "nats per token",
        {"entropy": "entropy"},
        "Mean entropy of the policy's next-token distribution over sampled tokens; near zero it "
        "has stopped exploring",
    ),
    Figure(
        "Loss",
        "nats per token",
        {"loss": "loss"},
        "Training loss: cross-entropy of the taught tokens under SFT; under RL the policy-gradient "
        "surrogate, whose level says nothing",
    ),
)
"""In the order of the page."""
