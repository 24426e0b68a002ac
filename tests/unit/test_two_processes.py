"""One process and two, by accelerate launch with gloo: the same rollouts, gradients and weights."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from services.clock import WorkClock
from services.config import RL
from services.errors import RecipeError
from services.training.grpo import train_rl
from services.training.processes import share_of
from tests.unit.small_training import RL_SMALL, Recorder, ScoreByLength, job, write_policy

LAUNCH = (
    "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes",
    "2", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
)  # fmt: skip
"""Without a GPU the training arguments ask for the CPU, and accelerate takes gloo."""


def test_two_processes_do_what_one_does(tmp_path):
    torch.set_num_threads(1)
    policy = write_policy(tmp_path / "policy")
    settings = RL.model_validate(
        RL_SMALL.model_dump()
        | {"prompts_per_step": 4, "estimator": "bnpo", "scale_rewards": "batch", "eval_every": 2}
        | {"kl_beta": 0.02, "reference_sync_steps": 2, "eval_problems": 3}
    )
    seen = Recorder()
    train_rl(job(policy, tmp_path / "one", settings), ScoreByLength(), seen, WorkClock())

    (tmp_path / "two").mkdir()
    words = ["-m", "tests.unit.small_training", str(policy), str(tmp_path / "two")]
    done = subprocess.run(
        [sys.executable, *LAUNCH, *words, settings.model_dump_json()],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads((tmp_path / "two" / "told.json").read_text())

    assert told["tokens"] == [list(row.completion.token_ids) for row in seen.rollouts]
    assert told["advantages"] == pytest.approx([row.advantage for row in seen.rollouts])
    for metrics, values in zip(seen.steps, told["values"], strict=True):
        assert set(metrics.values) == set(values)
        for name in set(values) - {"tokens_per_second", "training/tokens_per_second"}:
            assert values[name] == pytest.approx(metrics.values[name], rel=1e-3, abs=1e-5), name
    one, two = (load_file(tmp_path / x / "out" / "model.safetensors") for x in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-3)


def test_prompts_that_cannot_be_shared_are_refused():
    assert share_of(6, 2) == 3
    with pytest.raises(RecipeError, match="5 prompts in a step cannot be shared by 2 processes"):
        share_of(5, 2)
