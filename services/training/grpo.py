"""GRPO as in the paper, on TRL's trainer, with the parts that make it fit small machines.

TRL keeps the loss, the optimizer, the schedule, the reference model and the checkpoints. Ours are
the rollouts (``services.sampling``: groups share a prompt, finished rows leave), the rewards (a
function handed in), the lean pass (``microbatches``) and the record of every completion.
Left out: several processes, adapters; both are the trainer's and not tried here.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from services.clock import WorkClock
from services.config import RL, Engine
from services.errors import ArtifactError
from services.metrics import Scored, batch_metrics
from services.prompts import r1_prompt
from services.sampling import Sampler, SampleRequest, SamplingSettings
from services.sampling.local import LocalSampler
from services.traces import facts_of
from services.training.advantages import group_advantages
from services.training.checkpoints import CompleteCheckpoints, latest_checkpoint, step_of
from services.training.machine import device_of
from services.training.microbatches import micro_batches
from services.types import Completion, Metrics, Problem, Rollout, Score


class ScoreFunction(Protocol):
    """The reward of a stage."""

    def begin(self, problem: Problem, group: Sequence[Completion]) -> None:
        """A group is sampled; what can be scored of it may start while others decode."""

    def __call__(
        self,
        problems: Sequence[Problem],
        groups: Sequence[Sequence[Completion]],
        *,
        max_tokens: int = 0,
    ) -> list[list[Score]]:
        """Scores of a step in the shape of its groups; ``max_tokens`` was the length limit."""
        ...


class StepRecorder(Protocol):
    """Who is told about every step."""

    def resumed(self, step: int) -> None:
        """Training goes on after ``step``; anything later is forgotten and done again."""

    def step(self, metrics: Metrics, rollouts: Sequence[Rollout]) -> None:
        """One step is done."""


@dataclass(frozen=True, slots=True)
class RLJob:
    """All that one reinforcement-learning stage needs, as cheap descriptions."""

    policy: Path
    """Folder of the checkpoint to start from."""
    output: Path
    """Folder the trained policy is written to."""
    work: Path
    """Folder of resumable checkpoints; removed by the caller when the stage is done."""
    settings: RL
    engine: Engine
    stream: str
    """Names the random streams of this stage, for instance ``seed-0/zero``."""
    schedule: Sequence[Sequence[Problem]]
    """Problems of each step, ``(steps, prompts_per_step)``."""


def train_rl(job: RLJob, score: ScoreFunction, recorder: StepRecorder, clock: WorkClock) -> None:
    """Run (or resume) a stage and write the trained policy to ``job.output``."""
    device = device_of(job.engine)
    model = load_policy(job.policy, device)
    tokenizer = AutoTokenizer.from_pretrained(job.policy, padding_side="left")
    trainer = LeanGRPOTrainer(job, model, tokenizer, score, recorder, clock)
    checkpoint = latest_checkpoint(job.work)
    recorder.resumed(step_of(checkpoint) if checkpoint else 0)
    if checkpoint is not None:
        trainer.checkpoints.restore(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    save_policy(model, tokenizer, job.output)


def load_policy(folder: Path, device: torch.device) -> Any:
    """A checkpoint in float32 on its device; weights come from safetensors only.

    Raises:
        ArtifactError: The folder is no loadable checkpoint.
    """
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ArtifactError(
            f"cannot load a model from {folder}: {str(error).strip().splitlines()[0]}",
            "Delete the folder and run its stage again, or name another checkpoint",
        ) from error
    return model.to(device)


def save_policy(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a loadable Hugging Face folder: safetensors, configuration, tokenizer."""
    model.config.use_cache = True
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def trl_config(job: RLJob) -> GRPOConfig:
    """The recipe's numbers as TRL's settings (mapping: R1 v2 appendix B.4)."""
    rl = job.settings
    batch = rl.prompts_per_step * rl.group_size
    return GRPOConfig(
        output_dir=str(job.work),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        steps_per_generation=rl.minibatches_per_rollout,
        num_generations=rl.group_size,
        max_completion_length=max(rl.max_new_tokens, rl.max_new_tokens_later),
        temperature=rl.temperature,
        learning_rate=rl.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=rl.warmup_steps,
        max_steps=rl.steps,
        max_grad_norm=rl.max_grad_norm,
        beta=rl.kl_beta,
        epsilon=rl.clip_epsilon,
        loss_type=rl.estimator,
        scale_rewards=rl.scale_rewards,
        sync_ref_model=rl.kl_beta > 0 and rl.reference_sync_steps > 0,
        ref_model_mixup_alpha=1.0,
        ref_model_sync_steps=max(rl.reference_sync_steps, 1),
        shuffle_dataset=False,
        remove_unused_columns=False,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=device_of(job.engine).type == "cpu",
        dataloader_pin_memory=False,
        seed=0,
        logging_steps=1,
        save_steps=rl.save_every,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


TRL_METRICS = {"kl": "kl", "entropy": "entropy", "clip_ratio/region_mean": "clip/share"}
"""TRL's names of what its loss measures, and ours."""


class LeanGRPOTrainer(GRPOTrainer):
    """TRL's trainer with our rollouts, rewards, micro-batches and records."""

    def __init__(
        self,
        job: RLJob,
        model: Any,
        tokenizer: Any,
        score: ScoreFunction,
        recorder: StepRecorder,
        clock: WorkClock,
    ) -> None:
        rows = [
            {"prompt": r1_prompt(problem.question), "place": place}
            for place, problem in enumerate(p for step in job.schedule for p in step)
        ]
        super().__init__(
            model=model,
            args=trl_config(job),
            reward_funcs=_unused_reward,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        self.job = job
        self.tokenizer = tokenizer
        self.device = model.device
        self.problems = [problem for step in job.schedule for problem in step]
        self.score = score
        self.recorder = recorder
        self.clock = clock
        self.sampler: Sampler = LocalSampler(model, tokenizer, batch_size=job.engine.batch_size)
        self.checkpoints = CompleteCheckpoints(self.ref_model)
        self.add_callback(self.checkpoints)
        self._rollouts: list[Rollout] = []
        self._step_values: dict[str, float] = {}

    def _generate_and_score_completions(
        self, inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor]:
        """Replace TRL's generation: sample, score, compare within groups."""
        rl = self.job.settings
        step = self.state.global_step
        chosen = inputs[:: rl.group_size]
        problems = [self.problems[row["place"]] for row in chosen]
        limit = _token_limit(rl, step)
        started = time.perf_counter()
        with self.clock.measure("sampling"):
            groups = self.sampler.sample(
                [
                    SampleRequest(
                        row["prompt"],
                        rl.group_size,
                        stream_seed(f"{self.job.stream}/{step}/{place}"),
                    )
                    for place, row in enumerate(chosen)
                ],
                SamplingSettings(rl.temperature, limit),
                lambda place, group: self.score.begin(problems[place], group),
            )
        seconds = time.perf_counter() - started
        with self.clock.measure("scoring"):
            scores = self.score(problems, groups, max_tokens=limit)
            rows = [
                Scored(problem, completion, score, _facts(problem, completion, score))
                for problem, group, marks in zip(problems, groups, scores, strict=True)
                for completion, score in zip(group, marks, strict=True)
            ]
            compared = group_advantages(
                [row.score.total for row in rows],
                [row.correct for row in rows],
                rl.group_size,
                rl.scale_rewards,
            )
        self._rollouts = [
            Rollout(*row, group=i // rl.group_size, sample=i % rl.group_size, advantage=advantage)
            for i, (row, advantage) in enumerate(
                zip(rows, compared.advantages.tolist(), strict=True)
            )
        ]
        tokens = sum(len(row.completion.token_ids) for row in rows)
        self._step_values = {
            **batch_metrics(rows),
            "groups/dead_right": compared.dead_right,
            "groups/dead_wrong": compared.dead_wrong,
            "tokens_per_second": tokens / seconds,
        }
        return self._tensors(chosen, rows, compared.advantages)

    def _tensors(
        self, chosen: list[dict[str, Any]], rows: list[Scored], advantages: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The batch in the form TRL's loss reads."""
        rl = self.job.settings
        prompts = [
            ids
            for row in chosen
            for ids in [self.tokenizer.encode(row["prompt"], add_special_tokens=False)]
            * rl.group_size
        ]
        pad = int(self.tokenizer.pad_token_id)
        completions = [list(row.completion.token_ids) for row in rows]
        prompt_ids, prompt_mask = _pad(prompts, pad, left=True)
        completion_ids, completion_mask = _pad(completions, pad, left=False)
        batch = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": completion_mask,
            "advantages": advantages,
            "num_items_in_batch": completion_mask.sum(),
        }
        if rl.minibatches_per_rollout > 1:
            old = [list(row.completion.logprobs) for row in rows]
            batch["old_per_token_logps"], _ = _pad(old, 0.0, left=False)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over micro-batches; their gradients add up to the batch's."""
        model.train()
        batch = self._prepare_inputs(inputs)
        total = torch.zeros((), device=self.device)
        tokens = 0
        sums: dict[str, float] = {}
        with self.clock.measure("training"):
            for part in micro_batches(
                batch,
                estimator=self.job.settings.estimator,
                token_budget=self.job.engine.micro_batch_tokens,
                skip_idle=self.job.settings.kl_beta == 0,
            ):
                if self.ref_model is not None:
                    part.inputs["ref_per_token_logps"] = self._reference_logps(part.inputs)
                loss = self._compute_loss(model, part.inputs) * part.weight  # type: ignore[no-untyped-call]
                self.accelerator.backward(loss)
                total += loss.detach()
                tokens += part.tokens
                self._take_metrics(sums, part.tokens)
            for parameter in model.parameters():
                # A step without a gradient still moves by momentum, as it would with idle rows.
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        for theirs, ours in TRL_METRICS.items():
            if theirs in sums:
                self._step_values[ours] = sums[theirs] / tokens
        self._step += 1
        return total

    @torch.no_grad()
    def _reference_logps(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        width = inputs["completion_ids"].shape[1]
        logps: torch.Tensor = self._get_per_token_logps_and_entropies(
            self.ref_model, ids, mask, width
        )[0]
        return logps

    def _take_metrics(self, sums: dict[str, float], tokens: int) -> None:
        """Move a micro-batch's means out of TRL's lists, weighted by its tokens."""
        for name, values in self._metrics["train"].items():
            if values:
                sums[name] = sums.get(name, 0.0) + values.pop() * tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record a finished step: called after the optimizer, with loss and gradient norm."""
        if "grad_norm" not in logs:
            return
        self._step_values |= {
            "loss": float(logs["loss"]),
            "grad_norm": float(logs["grad_norm"]),
            "learning_rate": float(logs["learning_rate"]),
        }
        self.recorder.step(Metrics(self.state.global_step, dict(self._step_values)), self._rollouts)
        self._rollouts = []


def stream_seed(name: str) -> int:
    """A 64-bit seed from the name of a random stream."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def _token_limit(rl: RL, step: int) -> int:
    later = rl.max_new_tokens_later and step >= rl.max_new_tokens_later_from
    return rl.max_new_tokens_later if later else rl.max_new_tokens


def _facts(problem: Problem, completion: Completion, score: Score) -> Any:
    return facts_of(problem, completion.text, score.verdict, truncated=completion.truncated)


def _pad(
    rows: Sequence[Sequence[float]], value: float, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """A padded tensor and its mask, both ``(rows, longest)``."""
    longest = max(map(len, rows))
    values = torch.full((len(rows), longest), value)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        span = slice(longest - len(row), longest) if left else slice(0, len(row))
        values[place, span] = torch.tensor(row, dtype=values.dtype)
        mask[place, span] = 1
    return values, mask


def _unused_reward(*_: Any, **__: Any) -> list[float | None]:
    raise AssertionError("rewards come from the score function")
