"""A recipe that runs every stage on the bundled models in seconds; results are not the point."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.config import Recipe
from services.recipes import load_recipe

MICRO = (
    "engine.threads=1",
    "problems.levels=[3, 4]",
    "zero.steps=3",
    "zero.prompts_per_step=4",
    "zero.group_size=4",
    "zero.save_every=1",
    "zero.max_new_tokens=64",
    "zero.eval_every=1",
    "zero.eval_problems=2",
    "zero.eval_samples=2",
    "cold_start.problems=24",
    "cold_start.samples_per_problem=2",
    "cold_start.max_new_tokens=64",
    "dev1.epochs=1",
    "dev2.steps=1",
    "dev2.prompts_per_step=2",
    "dev2.group_size=4",
    "dev2.max_new_tokens=64",
    "sft_set.problems=16",
    "sft_set.samples_per_problem=2",
    "sft_set.general_rows=16",
    "sft_set.max_new_tokens=64",
    "dev3.epochs=1",
    "preference.prompts=24",
    "preference.samples_per_prompt=4",
    "preference.held_out_samples=4",
    "preference.epochs=1",
    "preference.min_accuracy=0.0",
    "preference.max_new_tokens=32",
    "r1.steps=2",
    "r1.prompts_per_step=4",
    "r1.group_size=4",
    "r1.preference_last_steps=1",
    "r1.max_new_tokens=64",
    "distill.epochs=1",
    "on_policy.steps=1",
    "on_policy.prompts_per_step=4",
    "on_policy.max_new_tokens=64",
    "student_rl.steps=1",
    "student_rl.prompts_per_step=2",
    "student_rl.group_size=4",
    "student_rl.max_new_tokens=64",
    "evaluation.problems_per_level=2",
    "evaluation.samples=2",
    "evaluation.max_new_tokens=64",
    "evaluation.general_prompts=4",
    "evaluation.general_samples=1",
    "gate.min_gain_over_base=-1.0",
    "gate.min_language=0.0",
    "gate.min_format=0.0",
    "gate.min_safety=0.0",
    "distill_gate.min_gain_over_base=-1.0",
    "distill_gate.min_format=0.0",
    "distill_gate.min_language=0.0",
)


@pytest.fixture(scope="session")
def micro() -> Recipe:
    return load_recipe("tiny", ["name='micro'", *MICRO])


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One state folder, and so one Prefect server, for all tests of the session."""
    folder = tmp_path_factory.mktemp("r1-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("R1_STORE_URL", raising=False)
        from flows.environment import prepare_environment

        prepare_environment(folder)
        yield folder
