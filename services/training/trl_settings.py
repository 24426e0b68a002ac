"""The recipe's numbers as TRL's settings (mapping: R1 v2, appendix B.4, against TRL 1.16)."""

from trl import GRPOConfig

from services.sampling.random_streams import stream_seed
from services.training.job import RLJob
from services.training.machine import device_of, uses_bfloat16
from services.training.processes import launched, share_of
from services.training.vllm_rollouts import vllm_arguments


def trl_config(job: RLJob, learning_rate: float) -> GRPOConfig:
    """Settings of TRL's trainer.

    Args:
        job: The stage.
        learning_rate: The recipe's, unless a rollback has lowered it.
    """
    rl = job.settings
    prompts = share_of(rl.prompts_per_step, launched())
    return GRPOConfig(
        output_dir=str(job.work),
        per_device_train_batch_size=prompts * rl.group_size,
        gradient_accumulation_steps=1,
        steps_per_generation=rl.minibatches_per_rollout,
        num_iterations=rl.epochs_per_rollout,
        num_generations=rl.group_size,
        max_completion_length=max(rl.max_new_tokens, rl.max_new_tokens_later),
        temperature=rl.temperature,
        learning_rate=learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=rl.warmup_steps,
        max_steps=rl.steps,
        max_grad_norm=rl.max_grad_norm,
        beta=rl.kl_beta,
        use_bias_correction_kl=rl.unbiased_kl,
        epsilon=rl.clip_epsilon,
        epsilon_high=rl.clip_epsilon_high or rl.clip_epsilon,
        importance_sampling_level=rl.importance_sampling,
        loss_type=rl.estimator,
        scale_rewards=rl.scale_rewards,
        sync_ref_model=rl.kl_beta > 0 and rl.reference_sync_steps > 0,
        ref_model_mixup_alpha=1.0,
        ref_model_sync_steps=max(rl.reference_sync_steps, 1),
        shuffle_dataset=False,
        remove_unused_columns=False,
        bf16=uses_bfloat16(job.engine),
        gradient_checkpointing=job.engine.gradient_checkpointing,
        use_cpu=device_of(job.engine).type == "cpu",
        dataloader_pin_memory=False,
        seed=stream_seed(job.stream) % 2**31 if rl.lora.rank else 0,  # decides new adapters only
        logging_steps=1,
        save_steps=rl.save_every,
        save_total_limit=None,
        report_to="none",
        disable_tqdm=True,
        **vllm_arguments(job.engine, rl),
    )
