"""Distillation on the student's own samples (GKD, 2306.13649), with TRL's trainer.

The student answers, and at every token of its answer the teacher's whole distribution corrects its
own. TRL keeps loss, optimizer and checkpoints; the answers come from ``services.sampling``, so that
each has a random stream of its own and a resumed run is the same run. Student and teacher must
share a vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import DistillationConfig, DistillationTrainer

from services.clock import WorkClock
from services.config import Engine
from services.config_adapters import OnPolicy
from services.errors import RecipeError
from services.prompts import R1_PROMPTING, Prompting
from services.sampling import Sampler, SampleRequest, SamplingSettings
from services.sampling.local import LocalSampler
from services.sampling.random_streams import stream_seed
from services.training.adapters import lora_config, merged, plain
from services.training.checkpoints import CompleteCheckpoints, latest_checkpoint
from services.training.machine import device_of, silence
from services.training.policies import load_policy, save_policy
from services.types import Metrics, Problem

TRL_METRICS = {
    "loss": "divergence",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "completions/mean_length": "length/mean",
    "completions/clipped_ratio": "truncated",
}
"""TRL's names of what is recorded of a step, and ours."""


@dataclass(frozen=True, slots=True)
class OnPolicyJob:
    """All that one stage needs."""

    student: Path
    teacher: Path
    output: Path
    work: Path
    settings: OnPolicy
    engine: Engine
    stream: str
    """Names the random streams of this stage."""
    schedule: Sequence[Sequence[Problem]]
    """Problems of each step, ``(steps, prompts_per_step)``."""
    prompting: Prompting = R1_PROMPTING
    """How the student is asked."""


def train_on_policy(job: OnPolicyJob, record: Callable[[Metrics], None], clock: WorkClock) -> None:
    """Run (or resume) a stage and write the student to ``job.output``.

    Raises:
        RecipeError: Student and teacher have different vocabularies.
    """
    device = device_of(job.engine)
    tokenizer = AutoTokenizer.from_pretrained(job.student, padding_side="left")
    _require_one_vocabulary(tokenizer, AutoTokenizer.from_pretrained(job.teacher))
    student = load_policy(job.student, device, job.settings.lora)
    trainer = SampledDistillation(job, student, load_policy(job.teacher, device), tokenizer, clock)
    for callback in (_Recorder(record), CompleteCheckpoints()):
        trainer.add_callback(callback)
    silence(trainer)
    checkpoint = latest_checkpoint(job.work)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trained = merged(trainer.model, lambda: load_policy(job.student, device))
    save_policy(trained, tokenizer, job.output)


def _require_one_vocabulary(student: Any, teacher: Any) -> None:
    if student.get_vocab() != teacher.get_vocab():
        raise RecipeError(
            "the student of on-policy distillation has another vocabulary than its teacher",
            "Choose a student of the base's family, or set on_policy.steps to 0: distillation on "
            "the teacher's texts needs no common vocabulary",
        )


class SampledDistillation(DistillationTrainer):
    """TRL's trainer with our sampler."""

    def __init__(
        self, job: OnPolicyJob, student: Any, teacher: Any, tokenizer: Any, clock: WorkClock
    ) -> None:
        prompts = [job.prompting.prompt(p.question) for step in job.schedule for p in step]
        super().__init__(
            model=student,
            teacher_model=teacher,
            args=_trl_config(job),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=tokenizer,
            peft_config=lora_config(job.settings.lora),
        )
        self.job = job
        self.clock = clock
        self.sampler: Sampler = LocalSampler(
            plain(self.model), tokenizer, batch_size=job.engine.batch_size
        )

    def _generate(self, prompts: list[str]) -> Any:
        self._asked = prompts
        return super()._generate(prompts)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """As the sampler reads them."""
        return [self._tokenizer.encode(p, add_special_tokens=False) for p in prompts], None, {}

    def _generate_single_turn(self, *_: Any, **__: Any) -> list[list[int]]:
        """Replace TRL's generation."""
        stream = f"{self.job.stream}/{self.state.global_step}"
        settings = self.job.settings
        with self.clock.measure("sampling"):
            groups = self.sampler.sample(
                [
                    SampleRequest(prompt, 1, stream_seed(f"{stream}/{place}"))
                    for place, prompt in enumerate(self._asked)
                ],
                SamplingSettings(settings.temperature, settings.max_new_tokens),
            )
        return [list(group[0].token_ids) for group in groups]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, timed."""
        with self.clock.measure("training"):
            return super().compute_loss(*args, **kwargs)


def _trl_config(job: OnPolicyJob) -> DistillationConfig:
    settings = job.settings
    return DistillationConfig(
        output_dir=str(job.work),
        per_device_train_batch_size=settings.prompts_per_step,
        gradient_accumulation_steps=1,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=settings.max_grad_norm,
        beta=settings.divergence,
        temperature=settings.temperature,
        max_completion_length=settings.max_new_tokens,
        shuffle_dataset=False,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=device_of(job.engine).type == "cpu",
        dataloader_pin_memory=False,
        seed=stream_seed(job.stream) % 2**31,
        logging_steps=1,
        save_steps=settings.save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


class _Recorder(TrainerCallback):
    """Hands the numbers of every step on."""

    def __init__(self, record: Callable[[Metrics], None]) -> None:
        self.record = record

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """One step is done."""
        if logs and "loss" in logs:
            values = {ours: float(logs[name]) for name, ours in TRL_METRICS.items() if name in logs}
            self.record(Metrics(state.global_step, values))
