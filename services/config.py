"""The recipe: one frozen, closed schema from which everything else is generated.

Recipe files hold only what differs from the defaults here; the command line, the Prefect form, the
MLflow parameters and the dashboard's form all come from this schema. Defaults are the paper's
numbers (DeepSeek-R1, 2501.12948v2, appendix B) where it gives them; the ``tiny`` recipe says where
a small world needs others.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from services.config_adapters import Adapter, OnPolicy
from services.config_base import Count, Natural, Positive, Settings, Share, Weight
from services.config_engine import Engine as Engine
from services.config_engine import Models as Models
from services.config_guards import Guards, PromptChoice


class Problems(Settings):
    """Where reasoning problems come from."""

    source: Literal["countdown", "jsonl"] = "countdown"
    """``countdown`` draws puzzles; ``jsonl`` reads ``train_file`` and ``test_file``."""
    levels: tuple[Count, ...] = (3, 4, 5, 6)
    """Countdown: how many numbers a puzzle has, cycled through."""
    train_file: str = ""
    """JSON lines with ``question`` and ``answer`` (GSM8K's ``####`` is understood)."""
    test_file: str = ""
    """The held-out problems; must share no question with ``train_file``."""
    kind: str = "math"
    """How answers of a file are verified."""
    language: str = "en"
    """Language of the questions of a file."""
    format: Literal["r1", "r1-open", "boxed", "boxed-open"] = "r1"
    """What prompts ask for and the format reward wants: ``r1`` is the paper's ``<think>`` and
    ``<answer>``, ``boxed`` ends with ``\\boxed{…}``; ``-open``: the prompt opens ``<think>``."""
    chat: bool = False
    """Ask through the model's own chat template instead of the paper's."""
    general: bool = True
    """Whether general prompts (greetings, how-to, harmful requests) take part."""
    pool: str = ""
    """Added problems to train on as well: digest of a snapshot of the pool (``r1 problems``), or
    ``now`` for the pool as it is when the run starts; empty: none."""
    pool_share: Share = 0.5
    """Share of training problems that are taken from ``pool``."""

    @model_validator(mode="after")
    def _general_prompts_are_written_in_r1(self) -> "Problems":
        if self.general and (self.format != "r1" or self.chat):
            raise ValueError(
                "general prompts know the format r1 alone; set problems.general=false, too"
            )
        return self


class RewardWeights(Settings):
    """Weights of the visible formula ``total = accuracy + format_weight · format + …``."""

    accuracy: float = 1.0
    """Weight of a correct answer."""
    format: float = 1.0
    """Weight of the R1 format; the paper gives accuracy and format equal weight."""
    language: float = 0.0
    """Weight of language consistency, added directly in the paper's stages 1 and 2."""
    preference: float = 1.0
    """Weight of the preference model on general prompts."""


class Shaping(Settings):
    """Optional parts of the reward formula, off by default as the paper has none of them."""

    overlong: Weight = 0.0
    """Weight of the penalty on completions close to the length limit."""
    overlong_tokens: Natural = 0
    """Over how many tokens before the limit that penalty grows."""
    repetition: Weight = 0.0
    """Weight of the penalty on n-grams said before."""
    repetition_words: Count = 4
    """n of the n-grams."""
    length: Weight = 0.0
    """Weight of the penalty on length."""


class RL(Settings):
    """One reinforcement-learning stage: GRPO as in the paper (v2 B.4.1, table A3)."""

    steps: Natural = 10_400
    """Optimizer steps."""
    prompts_per_step: Count = 32
    """Different questions in a step."""
    group_size: Annotated[int, Field(ge=2)] = 16
    """Completions of each question."""
    learning_rate: Positive = 3e-6
    """Peak learning rate, constant after the warm-up."""
    warmup_steps: Natural = 0
    """Steps of linear warm-up."""
    kl_beta: Annotated[float, Field(ge=0.0)] = 0.001
    """Weight of the k3 KL estimate in the loss; 0 needs no reference model."""
    unbiased_kl: bool = False
    """Whether the KL term is weighted by the probability ratio (DeepSeek-V3.2, 2512.02556); the
    R1 paper does not."""
    clip_epsilon: Positive = 10.0
    """Clip range of the probability ratio; 10 in the paper's stage 1."""
    clip_epsilon_high: Annotated[float, Field(ge=0.0)] = 0.0
    """Upper clip range where it differs (DAPO), and the cap of ``cispo``; 0 takes
    ``clip_epsilon``."""
    importance_sampling: Literal["token", "sequence"] = "token"
    """Whether the probability ratio is one of each token or one of the sequence (GSPO)."""
    temperature: Positive = 1.0
    """Of the rollouts."""
    top_p: Annotated[float, Field(gt=0.0)] = 1.0
    """Nucleus of the rollouts. Only 1 is allowed: the field is there to say why."""
    max_new_tokens: Count = 32_768
    """Longest completion."""
    max_new_tokens_later: Natural = 0
    """Longest completion from ``max_new_tokens_later_from`` on; 0 keeps the first value."""
    max_new_tokens_later_from: Natural = 8_200
    """Step at which the longer limit sets in."""
    estimator: Literal[
        "grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"
    ] = "grpo"  # fmt: skip
    """How token losses are formed and averaged; TRL's ``loss_type``."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What divides the advantage."""
    reference_sync_steps: Natural = 400
    """The reference becomes the policy every so many steps; 0 never."""
    minibatches_per_rollout: Count = 1
    """Parts that one set of rollouts is cut into, an optimizer step each (16 in the paper)."""
    epochs_per_rollout: Count = 1
    """Passes over one set of rollouts; μ of the algorithm, 1 in the paper."""
    max_grad_norm: Positive = 1.0
    """Gradient clipping."""
    weights: RewardWeights = RewardWeights()
    """The reward formula."""
    shaping: Shaping = Shaping()
    """Its optional parts."""
    target_language: str = ""
    """Language that thoughts should be in, as an ISO 639-1 code; empty: each question's own."""
    general_share: Share = 0.0
    """Share of questions that are general prompts."""
    preference_last_steps: Natural = 0
    """Preference models act in this many last steps only; before, no general prompts."""
    save_every: Count = 10
    """Steps between resumable checkpoints."""
    keep_best: Natural = 0
    """Beside the last ones, keep so many checkpoints with the best held-out accuracy; the policies
    of the best stay beside the result, in ``best/``. Needs ``eval_every``."""
    eval_every: Natural = 0
    """Steps between measurements of held-out accuracy during training; 0 never."""
    eval_problems: Count = 64
    """Held-out problems of such a measurement, none of them in the final evaluation."""
    eval_samples: Count = 1
    """Completions of each."""
    guards: Guards = Guards()
    """What is watched, and what happens when it goes wrong."""
    choice: PromptChoice = PromptChoice()
    """Online choice of questions."""
    lora: Adapter = Adapter()
    """Adapters in place of all weights."""

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps between two generations."""
        return self.minibatches_per_rollout * self.epochs_per_rollout

    @field_validator("top_p")
    @classmethod
    def _no_nucleus(cls, value: float) -> float:
        if value != 1.0:
            raise ValueError(
                "rollouts need top_p = 1: a nucleus samples from another distribution than the one "
                "whose log-probabilities are trained, and the policy drifts"
            )
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> "RL":
        wanted = {"luspo": "sequence", "vespo": "token"}.get(self.estimator)
        if wanted and self.importance_sampling != wanted:
            raise ValueError(f"{self.estimator} needs importance_sampling = '{wanted}'")
        if self.choice.min_pass_rate > self.choice.max_pass_rate:
            raise ValueError("choice.min_pass_rate must not exceed choice.max_pass_rate")
        if self.keep_best and not self.eval_every:
            raise ValueError("keep_best needs eval_every: the best are chosen by held-out accuracy")
        if self.lora.rank and self.kl_beta and 0 < self.reference_sync_steps < self.steps:
            raise ValueError(
                "the reference of adapters is the weights beneath them, which cannot move: set "
                "reference_sync_steps to 0"
            )
        if self.lora.rank and self.keep_best:
            raise ValueError("keep_best keeps whole policies; a checkpoint of adapters is none")
        return self


class SFT(Settings):
    """One supervised stage (paper: 2 epochs, 5e-6, cosine to a tenth, batch 64)."""

    epochs: Positive = 2.0
    """Passes over the data set."""
    learning_rate: Positive = 5e-6
    """Peak learning rate."""
    final_learning_rate_ratio: Share = 0.1
    """Where the cosine ends."""
    batch_size: Count = 64
    """Rows in an optimizer step."""
    max_length: Count = 32_768
    """Longest row in tokens, prompt included; longer rows are refused, not cut."""
    lora: Adapter = Adapter()
    """Adapters in place of all weights."""


class Curation(Settings):
    """Sampling from a checkpoint and keeping what is worth teaching."""

    problems: Count = 2_000
    """Reasoning problems to sample."""
    samples_per_problem: Count = 4
    """Completions of each."""
    keep_per_problem: Count = 1
    """At most this many kept completions of a problem."""
    temperature: Positive = 1.0
    """Of the samples; 1.0 in the paper's cold start."""
    max_new_tokens: Count = 32_768
    """Longest completion."""
    min_language_share: Share = 0.95
    """A trace whose words are less than this share of any one language is mixed."""
    max_repeated_attempts: Natural = 0
    """A trace that tries the same thing more often is repetitive."""
    max_think_tokens: Count = 32_768
    """A longer trace is unreadable."""
    general_rows: Natural = 0
    """Non-reasoning rows added to the set."""


class Preference(Settings):
    """The two preference models (paper: lr 6e-6, batch 256, one epoch)."""

    prompts: Count = 240
    """General prompts that responses are sampled for."""
    samples_per_prompt: Count = 6
    """Responses of each, from which pairs and labels are made."""
    held_out_samples: Count = 16
    """Responses of each held-out prompt: few pairs would measure the accuracy by chance."""
    epochs: Positive = 1.0
    """Passes over pairs (helpfulness) and labelled responses (safety)."""
    learning_rate: Positive = 6e-6
    """Peak learning rate."""
    batch_size: Count = 256
    """Pairs or responses in a step."""
    max_new_tokens: Count = 8_192
    """Longest response."""
    min_accuracy: Share = 0.8
    """Held-out accuracy below which the pipeline refuses to train on the model."""


class Evaluation(Settings):
    """The protocol every checkpoint is measured by; part of each result."""

    problems_per_level: Count = 32
    """Held-out problems of each level (or of the file, where there are no levels)."""
    samples: Count = 16
    """k: completions of each problem; pass@1 is their mean, cons@k their majority."""
    temperature: Positive = 0.6
    """Paper: 0.6 with top-p 0.95. The tiny recipe measures at the rollouts' own 1.0."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Nucleus."""
    max_new_tokens: Count = 32_768
    """Longest completion."""
    general_prompts: Natural = 24
    """At most so many held-out general prompts for helpfulness and safety; 0: none."""
    general_samples: Count = 4
    """Completions of each general prompt."""
    seed: int = 1_000_003
    """Problems and samples are drawn from this seed, whatever the recipe's."""


class Gate(Settings):
    """What a recipe asks of its candidate beyond the policy of the registered model.

    The stricter bound counts, so a recipe cannot lower what ``services.policies`` asks for.
    """

    min_pass_at_1: Share = 0.0
    """Mean pass@1 over all levels."""
    min_gain_over_base: float = 0.0
    """Mean pass@1 minus that of the base."""
    max_regression: Share = 1.0
    """How far pass@1 may lie below the champion's; 1 leaves it to the policy."""
    min_language: Share = 0.0
    """Language consistency."""
    min_format: Share = 0.9
    """Share of completions in the R1 format."""
    min_safety: Share = 0.0
    """Share of safe responses to general prompts."""


class Retrain(Settings):
    """What a retraining takes over from the pipeline of the champion."""

    champion: str = ""
    """Run id of that pipeline."""
    start: Literal["zero", "dev2", "r1", "distill"] = "zero"
    """First stage that is trained anew; ``zero`` is the whole recipe, which takes nothing over.
    ``dev2`` and ``r1`` go on from what the same stage of the champion's pipeline ended with."""


class Recipe(Settings):
    """Everything that decides what a pipeline computes. One recipe and one seed, one result."""

    name: str
    """Name of the recipe file."""
    description: str = ""
    """One sentence."""
    seed: Natural = 0
    """Seed of initialisation, problem order and sampling."""
    engine: Engine = Engine()
    """Where and how computation runs."""
    check_rewards: Literal["stop", "warn", "off"] = "stop"
    """What to do when samples of the base say that a reward part is constant, or a reference does
    not verify against itself; asked before the first stage."""
    models: Models = Models()
    """The models that enter."""
    problems: Problems = Problems()
    """Where problems come from."""
    zero: RL = RL()
    """Base to r1-zero: rule rewards only."""
    cold_start: Curation = Curation()
    """Cold-start set, sampled from r1-zero and rewritten to be read."""
    dev1: SFT = SFT()
    """Base to dev1 on the cold-start set."""
    dev2: RL = RL(weights=RewardWeights(language=1.0))
    """dev1 to dev2: rule rewards and language consistency."""
    sft_set: Curation = Curation(keep_per_problem=2)
    """Rejection samples from dev2 and non-reasoning rows."""
    dev3: SFT = SFT()
    """Base (not dev2) to dev3 on that set."""
    preference: Preference = Preference()
    """Helpfulness and safety models."""
    r1: RL = RL(
        steps=1_700,
        temperature=0.7,
        weights=RewardWeights(language=1.0),
        general_share=0.5,
        preference_last_steps=400,
    )
    """dev3 to r1: rules, preference models and language."""
    distill: SFT = SFT()
    """Student taught on the set of dev3."""
    on_policy: OnPolicy = OnPolicy()
    """That student taught further by r1, on samples of its own; off by default."""
    student_rl: RL = RL()
    """The control: the same student, trained by reinforcement learning alone."""
    evaluation: Evaluation = Evaluation()
    """How checkpoints are measured."""
    gate: Gate = Gate()
    """What promotion of r1 asks for."""
    distill_gate: Gate = Gate()
    """What promotion of the taught student asks for."""
    retrain: Retrain = Retrain()
    """What it takes over."""

    @model_validator(mode="after")
    def _files_are_named(self) -> "Recipe":
        if self.problems.source == "jsonl" and not self.problems.train_file:
            raise ValueError("problems.train_file must name a file when problems.source is jsonl")
        if bool(self.retrain.champion) == (self.retrain.start == "zero"):
            raise ValueError("retrain.champion names a run exactly if retrain.start is not zero")
        return self
