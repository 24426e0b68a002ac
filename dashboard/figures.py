"""What the curves show: which metrics make a figure, and what they mean."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from services.reflection import RECHECKING, REFLECTIVE_WORDS


class Figure(NamedTuple):
    """One chart: metrics that share an axis."""

    title: str
    axis: str
    """What the vertical axis shows, with its unit."""
    series: Mapping[str, str]
    """Metric to the word for it; a name that ends in ``*`` stands for all that begin so."""
    definition: str
    """What the metric is, as the tooltip says it."""
    bands: Mapping[str, tuple[str, str]] = {}
    """Metric of ``series`` to the metrics between which a band is filled."""
    share: bool = False
    """Whether values lie in 0…1."""
    seldom: bool = False
    """Whether it is measured at few steps; it is shown as measured then, not smoothed."""
    tiny: bool = False
    """Whether values are so small that their axis is written with powers of ten."""

    def of(self, there: Iterable[str]) -> "Figure":
        """The same for the metrics there are: names that end in ``*`` are written out."""
        known = set(there)
        series: dict[str, str] = {}
        for name, word in self.series.items():
            if name.endswith("*"):
                stem = name.removesuffix("*")
                ends = sorted(n.removeprefix(stem) for n in known if n.startswith(stem))
                series |= {stem + end: word.format(end) for end in ends}
            elif name in known:
                series[name] = word
        bands = {name: ends for name, ends in self.bands.items() if known.issuperset(ends)}
        return self._replace(series=series, bands=bands)

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics it needs; those of ``of`` are without ``*``."""
        return (*self.series, *(end for ends in self.bands.values() for end in ends))


REWARD: Final = Figure(
    "Reward",
    "reward per completion",
    {"reward/total": "total"},
    "Mean weighted sum of all reward parts over the completions of a step",
)
ACCURACY: Final = Figure(
    "Accuracy in training",
    "share of right answers",
    {"accuracy": "accuracy"},
    "Share of sampled completions whose answer is right, on training questions",
    share=True,
)
HELD_OUT: Final = Figure(
    "Held-out accuracy",
    "share of right answers",
    {"held_out/accuracy": "pass@1 so far", "held_out/cons": "cons@k so far"},
    "On questions that no stage trains on. Lines: measured while a stage trains, on other ones of "
    "them. Dots: the evaluation of the model a stage made, under the protocol of the stage table: "
    "pass@1, the mean share of right answers, and cons@k, whether the most frequent of k answers "
    "is right. Dashed: the base model, the other models of this run, and a line of your own",
    share=True,
    seldom=True,
)
LEARNING: Final = (
    REWARD,
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
    HELD_OUT,
    ACCURACY,
)
POLICY: Final = (
    Figure(
        "Entropy",
        "nats per token",
        {"entropy": "entropy"},
        "Mean entropy of the policy's next-token distribution over sampled tokens; near zero it "
        "has stopped exploring",
    ),
    Figure(
        "KL to the reference",
        "nats per token",
        {"kl": "KL"},
        "Estimate (k3) of the divergence of the policy from its reference model over sampled "
        "tokens; recorded where the recipe gives it a weight",
    ),
    Figure(
        "Clip share",
        "share of tokens",
        {"clip/share": "clipped"},
        "Share of tokens whose probability ratio left the clip range, so that they give no "
        "gradient; recorded where a rollout is trained on more than once",
        share=True,
    ),
    Figure(
        "Gradient norm",
        "norm before clipping",
        {"grad_norm": "norm"},
        "Euclidean norm of the whole gradient before it is clipped; a jump often precedes a "
        "collapse",
    ),
    Figure(
        "Log-prob mismatch",
        "nats per token",
        {"mismatch/kl": "KL (k3)", "mismatch/mean_abs": "mean distance"},
        "How far the log-probabilities of the sampler are from those the trainer computes for the "
        "same tokens; above a few hundredths, what is trained is not what was sampled",
        tiny=True,
    ),
    Figure(
        "Loss",
        "nats per token",
        {"loss": "loss"},
        "Training loss: cross-entropy of the taught tokens under SFT; under RL the policy-gradient "
        "surrogate, whose level says nothing",
    ),
    Figure(
        "Learning rate",
        "per step",
        {"learning_rate": "learning rate"},
        "Step size of the optimizer after warm-up and decay",
        tiny=True,
    ),
)
WORK: Final = (
    Figure(
        "Dead groups",
        "share of groups",
        {"groups/dead_right": "all right", "groups/dead_wrong": "all wrong"},
        "Groups whose completions all got the same reward say nothing about which was better and "
        "train nothing: all right means the questions are too easy, all wrong too hard",
        share=True,
    ),
    Figure(
        "Sampling speed",
        "tokens per second",
        {"tokens_per_second": "sampled tokens"},
        "Sampled tokens of a step by the time that sampling took",
    ),
    Figure(
        "What goes wrong",
        "share of completions",
        {
            "truncated": "cut off at the limit",
            "unscorable": "unscorable",
            "false_claims": "false claims",
        },
        "Share of completions that end at the length limit, that no verifier could judge, or that "
        "claim success on a wrong value",
        share=True,
    ),
)
SECTIONS: Final = {"Learning": LEARNING, "Policy": POLICY, "Groups and speed": WORK}
"""The figures of the training page."""

LENGTH: Final = Figure(
    "Response length",
    "tokens per completion",
    {"length/mean": "mean (band: p10–p90)"},
    "Sampled tokens of a completion, thinking and answer; the band holds the middle 80 %",
    bands={"length/mean": ("length/p10", "length/p90")},
)
GIVES_UP: Final = Figure(
    "Giving up",
    "share of completions",
    {"gives_up": "gives up"},
    "Share of completions that stop searching and answer that there is no solution",
    share=True,
)
RECHECK: Final = Figure(
    "Re-checking",
    "words per completion",
    {"reflective/rechecking": "re-checking"},
    f"Mean count of {', '.join(RECHECKING)} and their Chinese forms in a completion",
)
MIXING: Final = Figure(
    "Language mixing",
    "share of completions",
    {"language/mixed": "mixed"},
    "Share of completions with any word that is not in the language of the question",
    share=True,
)
EMERGENCE: Final = (
    LENGTH,
    Figure(
        "Length of right and of wrong answers",
        "tokens per completion",
        {"length/right": "right (p10–p90)", "length/wrong": "wrong (p10–p90)"},
        "The same for completions with a right and with a wrong answer apart; longer wrong answers "
        "are often searches that did not end",
        bands={
            "length/right": ("length/right_p10", "length/right_p90"),
            "length/wrong": ("length/wrong_p10", "length/wrong_p90"),
        },
    ),
    Figure(
        "Reflective words",
        "words per completion",
        {"reflective/mean": "all", "reflective/rechecking": "re-checking"},
        f"Mean count of {', '.join(REFLECTIVE_WORDS)} and their Chinese forms in a completion; "
        f"re-checking counts {', '.join(RECHECKING)} alone",
    ),
    Figure(
        "Accuracy by level",
        "share of right answers",
        {"accuracy/level_*": "level {}"},
        "Share of right answers among training questions of one difficulty; a level is what the "
        "source of the problems says it is",
        share=True,
    ),
    Figure(
        "Language consistency",
        "share",
        {"language/consistency": "words in its language", "language/mixed": "mixed completions"},
        "Share of the words of the thinking that are in the language of the question, and share of "
        "completions with any word that is not",
        share=True,
    ),
    Figure(
        "Giving up and being cut off",
        "share of completions",
        {"gives_up": "gives up", "truncated": "cut off at the limit"},
        "Share of completions that stop searching without an answer, and that end at the length "
        "limit",
        share=True,
    ),
)
"""The curves of the emergence page."""


def word_metric(language: str, word: str) -> str:
    """The metric that counts one reflective word in one language, ``en`` or ``zh``."""
    return f"reflective/{language}/{word}"
