"""GRPO as in the paper, on TRL's trainer, with the parts that make it fit small machines.

TRL keeps the loss, the optimizer, the schedule, the reference model and the checkpoints. Ours are
the rollouts (``rollouts``), the lean pass (``microbatches``), the guards and what they do
(``guards``), held-out accuracy while training, and the record of every completion. One process or
many: ``processes`` says what they do together. All weights or adapters (``adapters``); the choices
of a mixture of experts are watched (``experts``).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOTrainer

from services.clock import WorkClock
from services.errors import GuardError
from services.sampling import Sampler
from services.sampling.local import LocalSampler
from services.training.adapters import beneath, lora_config, merged, plain
from services.training.alignment import on_aligned_rows
from services.training.checkpoints import (
    CompleteCheckpoints,
    Memory,
    Retention,
    best_of,
    copy_policy,
    latest_checkpoint,
    roll_back,
    rollbacks,
    step_of,
    way_back,
    whole_checkpoints,
)
from services.training.diagnostics import PassMeans, compared
from services.training.experts import ExpertWatch
from services.training.guards import Finding, GuardWatch, strongest
from services.training.held_out import HeldOut
from services.training.job import RLJob, ScoreFunction, StepRecorder
from services.training.machine import where_to_load
from services.training.microbatches import MicroBatch, idle_batch, micro_batches
from services.training.policies import load_policy, save_policy
from services.training.processes import Processes
from services.training.rollouts import RolloutMaker
from services.training.throughput import FlopMeter
from services.training.trl_settings import trl_config
from services.training.vllm_rollouts import VllmRollouts
from services.types import EvaluationSample, Metrics, Rollout


def train_rl(job: RLJob, score: ScoreFunction, recorder: StepRecorder, clock: WorkClock) -> None:
    """Run (or resume) a stage and write the trained policy to ``job.output``.

    Raises:
        GuardError: A guard paused the stage; running it again goes on from there.
    """
    while True:
        trainer = _trainer_of(job, score, recorder, clock)
        trainer.run()
        stop = trainer.stop
        if stop is None:
            trainer.write(job.output)
            return
        if stop.policy == "pause":
            raise GuardError(
                f"{job.stream} paused after step {trainer.state.global_step}: {stop.what}",
                "Look at the samples of its last steps (r1 dashboard). Run the same command again "
                "to go on as it is, or change the recipe, which starts the stage anew",
            )
        trainer.rewind(stop)
        del trainer  # the next one brings its own model


def _trainer_of(
    job: RLJob, score: ScoreFunction, recorder: StepRecorder, clock: WorkClock
) -> "LeanGRPOTrainer":
    model = load_policy(job.policy, where_to_load(job.engine), job.settings.lora)
    tokenizer = AutoTokenizer.from_pretrained(job.policy, padding_side="left")
    return LeanGRPOTrainer(job, model, tokenizer, score, recorder, clock)


class LeanGRPOTrainer(GRPOTrainer):
    """TRL's trainer with our rollouts, rewards, micro-batches, guards and records."""

    def __init__(
        self,
        job: RLJob,
        model: Any,
        tokenizer: Any,
        score: ScoreFunction,
        recorder: StepRecorder,
        clock: WorkClock,
    ) -> None:
        self.problems = [problem for part in job.schedule for problem in part]
        self.setbacks = len(rollbacks(job.work))
        rate = job.settings.learning_rate * job.settings.guards.rollback_rate**self.setbacks
        super().__init__(
            model=model,
            args=trl_config(job, rate),
            reward_funcs=_unused_reward,
            train_dataset=Dataset.from_list(
                [
                    {"prompt": job.prompting.prompt(problem.question), "place": place}
                    for place, problem in enumerate(self.problems)
                ]
            ),
            processing_class=tokenizer,
            peft_config=lora_config(job.settings.lora),
        )
        self.job = job
        self.tokenizer = tokenizer
        self.device = self.accelerator.device
        self.recorder = recorder
        self.clock = clock
        self.processes = Processes(self.accelerator)
        policy = plain(self.model)
        sampler = self._sampler(policy)
        self.experts = ExpertWatch(policy, {p.kind for p in (*self.problems, *job.spares)})
        self.maker = RolloutMaker(job, tokenizer, sampler, score, clock, self.processes)
        self.held_out = HeldOut(job, sampler, score, clock, self.processes)
        self.watch = GuardWatch(job.settings.guards)
        self.stop: Finding | None = None
        """What ended training before its last step."""
        self.checkpoints = CompleteCheckpoints(
            self.ref_model, self, self.processes, _retention(job)
        )
        self.add_callback(self.checkpoints)
        self._rollouts: list[Rollout] = []
        self._step_values: dict[str, float] = {}
        self._loss_is_finite = True
        self._logps: torch.Tensor | None = None
        self._held_out_accuracy: float | None = None

    def _sampler(self, model: Any) -> Sampler:
        if self.job.engine.rollouts != "local":
            return VllmRollouts(self.vllm_generation, self.tokenizer)
        return LocalSampler(model, self.tokenizer, batch_size=self.job.engine.batch_size)

    def run(self) -> None:
        """Train to the end, or until a guard stops it; from the newest checkpoint if there is."""
        if self.processes.is_main:
            latest_checkpoint(self.job.work)  # removes torn ones
        self.processes.wait()
        checkpoint = latest_checkpoint(self.job.work)
        if self.processes.is_main:
            self.recorder.resumed(step_of(checkpoint) if checkpoint else 0)
        if checkpoint is not None:
            self._step = step_of(checkpoint)
            self.checkpoints.restore(checkpoint)
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    def rewind(self, stop: Finding) -> None:
        """Go back to the last good checkpoint: a quiet one from before the guard's window."""
        if self.processes.is_main:
            window = 1 if stop.guard == "non_finite" else self.job.settings.guards.window
            step = self.state.global_step
            to = way_back(whole_checkpoints(self.job.work), step - window)
            roll_back(self.job.work, to, {"step": step, "guard": stop.guard, "what": stop.what})
        self.processes.wait()

    def write(self, folder: Path) -> None:
        """Write the trained policy, and beside it those of the best checkpoints if asked for."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            self.save_model(str(folder))  # gathers the shards
        elif self.processes.is_main:
            frozen = partial(load_policy, self.job.policy, self.device)
            save_policy(merged(self.model, frozen), self.tokenizer, folder)
        if self.processes.is_main:
            best = best_of(whole_checkpoints(self.job.work), self.job.settings.keep_best)
            for checkpoint in best:
                source = self.job.work / f"checkpoint-{checkpoint.step}"
                copy_policy(source, folder / "best" / f"step-{checkpoint.step}")
        self.processes.wait()

    def memory(self) -> Memory:
        """What must be in a checkpoint beyond what TRL writes."""
        facts = {"guards": self.watch.state(), "values": self._step_values}
        in_use = self.state.global_step % self.job.settings.steps_per_rollout != 0
        rollouts = (self._buffered_inputs or ()) if in_use else ()
        return Memory(facts, rollouts, self.watch.quiet, self._held_out_accuracy)

    def remember(self, memory: Memory) -> None:
        """Go on from what was in a checkpoint."""
        self.watch.restore(memory.facts["guards"])
        self._step_values = dict(memory.facts["values"])
        if memory.rollouts:
            self._buffered_inputs: Any = [
                {name: tensor.to(self.device) for name, tensor in part.items()}
                for part in memory.rollouts
            ]

    def _generate_and_score_completions(
        self, inputs: list[dict[str, Any]]
    ) -> dict[str, torch.Tensor]:
        """Replace TRL's generation: sample, score, compare within groups."""
        rl = self.job.settings
        problems = [self.problems[row["place"]] for row in inputs[:: rl.group_size]]
        again = f"/again-{self.setbacks}" if self.setbacks else ""
        made = self.maker.make(problems, self.state.global_step, self.job.stream + again)
        self._rollouts = made.rollouts
        self._step_values = made.values
        mine = len(made.batch["advantages"])
        rows = made.rollouts[self.processes.index * mine :][:mine]
        made.batch.update(self.experts.columns([row.problem.kind for row in rows]))
        batch = {name: tensor.to(self.device) for name, tensor in made.batch.items()}
        if rl.steps_per_rollout > 1 or self.job.engine.rollouts != "local":
            sampled = batch.get("sampling_per_token_logps")
            batch["old_per_token_logps"] = self._policy_logps(batch) if sampled is None else sampled
        return batch

    def training_step(
        self, model: Any, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Forward and backward over micro-batches; their gradients add up to the batch's."""
        model.train()
        batch = self._prepare_inputs(inputs)
        total = torch.zeros((), device=self.device)
        measured, meter = (
            PassMeans(),
            FlopMeter(self.accelerator.unwrap_model(model).config, self.device),
        )
        before = self.clock.seconds.get("training", 0.0)
        with self.clock.measure("training"):
            for part, tokens, last in self._parts(batch):
                if self.job.settings.kl_beta:
                    part.inputs["ref_per_token_logps"] = self._reference_logps(part.inputs)
                with self._synchronised(model, last), self.experts.over(part.inputs):
                    loss = self._compute_loss(model, part.inputs) * part.weight  # type: ignore[no-untyped-call]
                    self.accelerator.backward(loss)
                total += loss.detach()
                meter.add(part.inputs)
                self._compare(part.inputs)
                for name, values in self._metrics["train"].items():
                    if values:
                        measured.add(name, values.pop(), tokens)
            for parameter in model.parameters():
                # A step without a gradient still moves by momentum, as it would with idle rows.
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        seconds = self.clock.seconds["training"] - before
        self._step_values |= dict(measured.means())
        self._step_values["training/tokens_per_second"] = measured.tokens / seconds
        self._step_values |= self.experts.take()
        self._step_values |= meter.share(seconds)
        self._loss_is_finite = bool(torch.isfinite(total))
        self._step += 1
        return total

    def _parts(self, batch: dict[str, torch.Tensor]) -> Iterator[tuple[MicroBatch, int, bool]]:
        """Micro-batches, the tokens all processes have in each, and whether it is the last.

        Every process makes as many passes, empty ones at the end, because passes meet in
        collective operations.
        """
        rl, count = self.job.settings, self.processes.count
        mine = int(batch["completion_mask"].sum())
        tokens_of_all = sum(self.processes.gather([mine]))
        parts = list(
            micro_batches(
                batch,
                estimator=rl.estimator,
                token_budget=self.job.engine.micro_batch_tokens,
                skip_idle=rl.kl_beta == 0,
                all_tokens=tokens_of_all / count,
            )
        )
        sizes = self.processes.gather([[part.tokens for part in parts]])
        passes = max(map(len, sizes))
        parts += [idle_batch(batch) for _ in range(passes - len(parts))]
        for place, part in enumerate(parts):
            tokens = sum(size[place] for size in sizes if place < len(size))
            yield part, tokens, place == passes - 1

    @contextmanager
    def _synchronised(self, model: Any, last: bool) -> Iterator[None]:
        """Gradients meet in the last pass of a step only."""
        if self.processes.count == 1 or last:
            yield
            return
        state = self.accelerator.gradient_state
        state._set_sync_gradients(False)
        try:
            with self.accelerator.no_sync(model):
                yield
        finally:
            state._set_sync_gradients(True)

    def _compare(self, inputs: Mapping[str, torch.Tensor]) -> None:
        """Measure sampler against trainer, and ratios outside the clip range where TRL does not."""
        assert self._logps is not None
        fresh = self._step % self.job.settings.steps_per_rollout == 0
        sums = compared(self._logps, inputs, self.job.settings, fresh=fresh)
        if not sums:
            return
        tokens = inputs["completion_mask"].sum().float()
        *totals, count = self.accelerator.reduce(torch.stack([*sums.values(), tokens]))
        for name, total in zip(sums, totals, strict=True):
            self._metrics["train"][name].append((total / count.clamp(min=1)).item())

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, on rows without padding in front; its log-probabilities are kept to compare."""
        found = on_aligned_rows(super()._get_per_token_logps_and_entropies, *args, **kwargs)
        self._logps = found[0].detach()
        return found

    def _policy_logps(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Log-probabilities of rows whose sampler did not say any, ``(rows, longest)``."""
        budget = self.job.engine.micro_batch_tokens
        size = max(1, budget // (batch["prompt_ids"].shape[1] + batch["completion_ids"].shape[1]))
        rows = range(0, len(batch["prompt_ids"]), size)
        chunks = [{n: t[at : at + size] for n, t in batch.items() if t.dim() > 1} for at in rows]
        return torch.cat([self._logps_of(self.model, chunk) for chunk in chunks])

    def _reference_logps(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Of the reference model; where adapters train, of the weights beneath them."""
        with beneath(self.model):
            return self._logps_of(self.ref_model or self.model, inputs)

    @torch.no_grad()
    def _logps_of(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        width = inputs["completion_ids"].shape[1]
        logps: torch.Tensor = self._get_per_token_logps_and_entropies(model, ids, mask, width)[0]
        return logps

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip; gradients that are not finite are dropped, so that they poison no weight."""
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        if norm is not None and not math.isfinite(float(norm)):
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.zero_()
        return norm

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """TRL's; then the learning rate of this attempt, where a rollback has lowered it."""
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[no-untyped-call]
        if checkpoint is None or not self.setbacks:
            return
        optimizer, schedule, rate = self.optimizer, self.lr_scheduler, self.args.learning_rate
        assert optimizer is not None
        assert schedule is not None
        schedule.base_lrs = [rate for _ in schedule.base_lrs]
        for group, shape in zip(optimizer.param_groups, schedule.lr_lambdas, strict=True):
            group["initial_lr"] = rate
            group["lr"] = rate * shape(schedule.last_epoch)
        schedule._last_lr = [group["lr"] for group in optimizer.param_groups]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record a finished step: called after the optimizer, with loss and gradient norm."""
        if "grad_norm" not in logs:
            return
        step, rl = self.state.global_step, self.job.settings
        self._step_values |= {
            # the trainer puts something else in the place of a loss that is not finite
            "loss": float(logs["loss"]) if self._loss_is_finite else math.nan,
            "grad_norm": float(logs["grad_norm"]),
            "learning_rate": float(logs["learning_rate"]),
        }
        values = dict(self._step_values)
        self._held_out_accuracy = None
        held_out: list[EvaluationSample] = []
        if rl.eval_every and step % rl.eval_every == 0:
            measured, held_out = self.held_out.measure(step)
            values |= measured
            self._held_out_accuracy = values["held_out/accuracy"]
            self.control.should_save |= rl.keep_best > 0
        if self.processes.is_main:
            self.recorder.step(Metrics(step, values), self._rollouts, held_out)
        self._rollouts = []
        self._guard(step, values)

    def _guard(self, step: int, values: Mapping[str, float]) -> None:
        """Raise alarms, and end training here where a guard's policy says so."""
        findings = self.processes.agree(self.watch.observe(values))
        stop = strongest(findings)
        if self.processes.is_main:
            for finding in findings:
                self.recorder.alarm(step, finding)
        if stop is None or stop.policy == "warn":
            return
        if stop.policy == "rollback" and self.setbacks >= self.job.settings.guards.max_rollbacks:
            what = f"{stop.what}, after {self.setbacks} rollbacks already"
            stop = replace(stop, policy="pause", what=what)
        self.stop = stop
        self.control.should_training_stop = True
        self.control.should_save = stop.policy == "pause"


def _retention(job: RLJob) -> Retention:
    guards = job.settings.guards
    back = "rollback" in (guards.policy, *guards.policies.values())
    return Retention(best=job.settings.keep_best, way_back=guards.window if back else None)


def _unused_reward(*_: Any, **__: Any) -> list[float | None]:
    raise AssertionError("rewards come from the score function")
