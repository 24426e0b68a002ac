"""Supervised fine-tuning on a data set, with TRL's trainer.

Rows are prompt and completion. Only the completion and its end are trained on, tokenised apart from
the prompt exactly as the sampler sees it, so that training and sampling agree on every boundary.
Distillation is this on a smaller model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from services.clock import WorkClock
from services.config import SFT, Engine
from services.errors import ProblemError, RecipeError
from services.training.adapters import lora_config, merged
from services.training.checkpoints import CompleteCheckpoints, latest_checkpoint
from services.training.machine import device_of, silence, uses_bfloat16, where_to_load
from services.training.policies import load_policy, save_policy
from services.training.processes import Processes, launched
from services.types import Metrics

IGNORE = -100


class SFTRow(NamedTuple):
    """One training row."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class SFTJob:
    """All that one supervised stage needs."""

    policy: Path
    output: Path
    work: Path
    settings: SFT
    engine: Engine
    seed: int
    rows: Sequence[SFTRow]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole stage."""
        return max(1, round(len(self.rows) * self.settings.epochs / self.settings.batch_size))


def train_sft(
    job: SFTJob, record: Callable[[Metrics], None], clock: WorkClock, *, save_every: int
) -> None:
    """Run (or resume) a stage and write the trained model to ``job.output``."""
    if not job.rows:
        raise ProblemError("the data set of a supervised stage is empty", "Loosen its curation")
    device = where_to_load(job.engine)
    model = load_policy(job.policy, device, job.settings.lora)
    tokenizer = AutoTokenizer.from_pretrained(job.policy, padding_side="right")
    trainer = SFTTrainer(
        model=model,
        args=_trl_config(job, save_every),
        train_dataset=Dataset.from_list([_encode(row, tokenizer, job) for row in job.rows]),
        processing_class=tokenizer,
        callbacks=[_Recorder(record)],
        peft_config=lora_config(job.settings.lora),
    )
    trainer.add_callback(CompleteCheckpoints(processes=Processes(trainer.accelerator)))
    silence(trainer)
    checkpoint = latest_checkpoint(job.work)
    with clock.measure("training"):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    tokenizer.padding_side = "left"
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(job.output))  # gathers the shards, so every process takes part
    elif trainer.is_world_process_zero():
        trained = merged(trainer.model, lambda: load_policy(job.policy, device))
        save_policy(trained, tokenizer, job.output)


def _trl_config(job: SFTJob, save_every: int) -> SFTConfig:
    return SFTConfig(
        output_dir=str(job.work),
        per_device_train_batch_size=_rows_of_a_process(job.settings.batch_size),
        max_steps=job.steps,
        learning_rate=job.settings.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": job.settings.final_learning_rate_ratio},
        warmup_steps=min(5, job.steps // 10),
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",
        bf16=uses_bfloat16(job.engine),
        gradient_checkpointing=job.engine.gradient_checkpointing,
        use_cpu=device_of(job.engine).type == "cpu",
        dataloader_pin_memory=False,
        seed=job.seed,
        logging_steps=1,
        save_steps=save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


def _rows_of_a_process(batch_size: int) -> int:
    """Rows of an optimizer step that one of the launched processes takes."""
    processes = launched()
    if batch_size % processes:
        raise RecipeError(
            f"a batch of {batch_size} rows cannot be shared by {processes} processes",
            "Set batch_size of that stage to a multiple of the number of processes",
        )
    return batch_size // processes


def _encode(row: SFTRow, tokenizer: Any, job: SFTJob) -> Mapping[str, list[int]]:
    prompt = tokenizer.encode(row.prompt, add_special_tokens=False)
    completion = tokenizer.encode(row.completion, add_special_tokens=False)
    ids = [*prompt, *completion, tokenizer.eos_token_id]
    if len(ids) > job.settings.max_length:
        raise ProblemError(
            f"a training row has {len(ids)} tokens, more than {job.settings.max_length}",
            "Raise max_length of that stage or lower max_think_tokens of its curation",
        )
    return {"input_ids": ids, "labels": [IGNORE] * len(prompt) + ids[len(prompt) :]}


class _Recorder(TrainerCallback):
    """Hands the loss of every step on."""

    def __init__(self, record: Callable[[Metrics], None]) -> None:
        self.record = record

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """One step is done."""
        if logs and "loss" in logs:
            names = ("loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy")
            values = {name: float(logs[name]) for name in names if name in logs}
            self.record(Metrics(state.global_step, values))
