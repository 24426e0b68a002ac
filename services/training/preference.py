"""The two preference models of the paper's second RL stage (v2 B.3.4).

*Helpfulness* is trained on pairs and judges the final summary alone; *safety* is trained point by
point and judges the whole response. Both are the policy's architecture with a scalar head, started
from a policy checkpoint. Their rewards are squashed to 0…1, so that they weigh as much as a rule.
TRL trains the pairs; for the point-wise loss, which TRL does not have, transformers' trainer does.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from trl import RewardConfig, RewardTrainer

from services.config import Engine, Preference
from services.prompts import parse, r1_prompt
from services.training.machine import device_of, silence

Aspect = Literal["helpfulness", "safety"]
ASPECTS: Final[tuple[Aspect, ...]] = ("helpfulness", "safety")


class Judged(NamedTuple):
    """A response with its label."""

    question: str
    response: str
    good: bool


class PreferenceReport(NamedTuple):
    """How a preference model does on held-out data."""

    accuracy: float
    """Share of pairs ordered right (helpfulness), of responses told right (safety)."""
    examples: int


class PreferenceModel:
    """A trained preference model in evaluation mode."""

    def __init__(self, folder: Path, aspect: Aspect, engine: Engine) -> None:
        self.aspect: Aspect = aspect
        self.batch_size = engine.batch_size
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        ).to(device_of(engine))
        self.model.eval()

    def rewards(self, items: Sequence[tuple[str, str]]) -> list[float]:
        """Rewards in 0…1 of (question, whole response) pairs, ``batch_size`` of them at a time."""
        texts = [judged_text(self.aspect, question, response) for question, response in items]
        starts = range(0, len(texts), self.batch_size)
        return [
            reward
            for start in starts
            for reward in self._rewards_of(texts[start : start + self.batch_size])
        ]

    @torch.inference_mode()
    def _rewards_of(self, texts: list[str]) -> list[float]:
        batch = self.tokenizer(
            texts, padding=True, add_special_tokens=False, return_tensors="pt"
        ).to(self.model.device)
        logits = self.model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).logits
        values: list[float] = torch.sigmoid(logits.squeeze(-1).float()).tolist()
        return values


def load_preference_models(folder: Path, engine: Engine) -> dict[str, PreferenceModel]:
    """The models of a finished preference stage, by aspect."""
    return {aspect: PreferenceModel(folder / aspect, aspect, engine) for aspect in ASPECTS}


def judged_text(aspect: Aspect, question: str, response: str) -> str:
    """What a preference model is shown: the summary for helpfulness, all of it for safety."""
    shown = parse(response).answer.strip() if aspect == "helpfulness" else response
    return f"{r1_prompt(question)} {shown}"


def make_pairs(judged: Sequence[Judged]) -> list[tuple[Judged, Judged]]:
    """(chosen, rejected) within each question; each response is used at most once per side."""
    by_question: dict[str, tuple[list[Judged], list[Judged]]] = {}
    for row in judged:
        by_question.setdefault(row.question, ([], []))[0 if row.good else 1].append(row)
    return [pair for good, bad in by_question.values() for pair in zip(good, bad, strict=False)]


def train_preference(
    policy: Path,
    judged: Sequence[Judged],
    aspect: Aspect,
    settings: Preference,
    engine: Engine,
    work: Path,
    output: Path,
    seed: int,
) -> None:
    """Train a preference model from a policy's weights and write it to ``output``."""
    torch.manual_seed(seed)  # the scalar head starts at random
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="right")
    model = AutoModelForSequenceClassification.from_pretrained(
        policy, num_labels=1, dtype=torch.float32
    ).to(device_of(engine))
    model.config.pad_token_id = tokenizer.pad_token_id
    shared: dict[str, Any] = {
        "output_dir": str(work),
        "per_device_train_batch_size": settings.batch_size,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": device_of(engine).type == "cpu",
        "dataloader_pin_memory": False,
        "seed": seed,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_strategy": "no",
    }

    def encode(row: Judged) -> list[int]:
        text = judged_text(aspect, row.question, row.response)
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    trainer: Trainer
    if aspect == "helpfulness":
        pairs = [
            {"chosen_ids": encode(chosen), "rejected_ids": encode(rejected)}
            for chosen, rejected in make_pairs(judged)
        ]
        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(center_rewards_coefficient=0.01, max_length=None, **shared),
            train_dataset=Dataset.from_list(pairs),
            processing_class=tokenizer,
        )
    else:
        model.config.problem_type = "multi_label_classification"  # one sigmoid: point-wise
        rows = [{"input_ids": encode(row), "labels": [float(row.good)]} for row in judged]
        trainer = Trainer(
            model=model,
            args=TrainingArguments(**shared),
            train_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
    silence(trainer)
    trainer.train()
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def evaluate_preference(model: PreferenceModel, judged: Sequence[Judged]) -> PreferenceReport:
    """Held-out accuracy: pairs for helpfulness, single responses for safety."""
    rewards = model.rewards([(row.question, row.response) for row in judged])
    if model.aspect == "safety":
        right = [(reward > 0.5) == row.good for reward, row in zip(rewards, judged, strict=True)]
        return PreferenceReport(sum(right) / max(len(right), 1), len(right))
    reward_of = dict(zip(judged, rewards, strict=True))
    pairs = make_pairs(judged)
    ordered = sum(reward_of[chosen] > reward_of[rejected] for chosen, rejected in pairs)
    return PreferenceReport(ordered / max(len(pairs), 1), len(pairs))
