"""What a recipe would take: every bundled one, and the arithmetic of the large ones."""

import json
from pathlib import Path

import pytest
import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

from flows.cli import app
from services.config_engine import ModelSize
from services.errors import RecipeError
from services.planner import model_size, plan
from services.recipes import bundled_recipes, load_recipe
from services.training.throughput import FlopMeter, matrix_weights, peak_of, training_flops

GIB = 2**30


def made(name: str, *changes: str):
    return plan(load_recipe(name, changes), Path("/state"), name)


@pytest.mark.parametrize("name", bundled_recipes())
def test_every_recipe_resolves_to_commands(name):
    result = CliRunner().invoke(app, ["plan", name, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    engine = load_recipe(name).engine
    trained = [stage for stage in told["stages"] if stage["kind"] in ("rl", "sft")]
    assert len(trained) == 7
    for stage in trained:
        assert len(stage["commands"]) == engine.nodes
        launched = engine.processes * engine.nodes > 1
        words = "-m services.launch" if launched else f"r1 run --recipe {name}"
        assert words in stage["commands"][0]
        assert stage["device_gib"] > 0
        assert stage["disk_gib"] > 0
    assert told["tokens"] == sum(stage["tokens"] for stage in told["stages"])


def test_the_paper_s_own_numbers_come_out():
    stages = {stage.stage: stage for stage in made("r1-671b").stages}
    zero = stages["zero"]
    assert zero.completions == 10_400 * 32 * 16 == 5_324_800
    assert zero.tokens == 512 * (8_200 * 32_768 + 2_200 * 65_536)
    assert zero.devices == 512
    assert zero.commands[63].count("--machine_rank 63") == 1
    assert stages["r1"].steps == 1_700
    assert "cannot be shared by 512 processes" in made("r1-671b").obstacles[0]


def test_memory_and_disk_by_hand():
    changes = ("engine.gradient_checkpointing=true", "engine.precision='bfloat16'",
               "engine.processes=4", "engine.accelerate_config='fsdp2'",
               "engine.rollouts='vllm-colocate'", "engine.micro_batch_tokens=1000",
               "zero.kl_beta=0.001", "zero.max_new_tokens=1000")  # fmt: skip
    size = "models.base_size={parameters=1000000, layers=2, width=10, vocabulary=50, cache_width=8}"
    (zero, *_) = made("tiny", *changes, size).stages
    # 20 bytes a weight over four devices; 1,000 tokens: two layers of ten bf16 numbers, 50 logits
    assert zero.device_gib == pytest.approx((20e6 / 4 + 1000 * (2 * 10 * 2 + 50 * 4)) / GIB)
    assert zero.disk_gib == pytest.approx((16 * 3 + 4) * 1e6 / GIB)
    assert zero.cache_gib == pytest.approx(1024 * 1000 * 2 * 8 * 4 / GIB)


def test_a_bundled_model_is_weighed_by_its_file():
    size = model_size("bundled:tiny-base", ModelSize(), Path("/state"))
    assert size.parameters == 927_872
    with pytest.raises(RecipeError, match="nothing says what the model someone/x weighs"):
        model_size("someone/x", ModelSize(), Path("/state"))


QWEN = {
    "qwen2.5-1.5b": (1536, 8960, 28, 12, 2, 151_936, True),
    "qwen2.5-7b": (3584, 18_944, 28, 28, 4, 152_064, False),
    "qwen2.5-32b": (5120, 27_648, 64, 40, 8, 152_064, False),
}


@pytest.mark.parametrize("name", QWEN)
def test_stated_weights_are_those_of_the_architecture(name):
    width, inner, layers, heads, kept, words, tied = QWEN[name]
    config = Qwen2Config(
        hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kept, vocab_size=words,
        tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Qwen2ForCausalLM(config).parameters())
    size = load_recipe(name).models.base_size
    assert size == ModelSize(
        parameters=parameters,
        layers=layers,
        width=width,
        vocabulary=words,
        cache_width=2 * kept * width // heads,
    )


def test_stated_weights_of_deepseek_v3():
    config = DeepseekV3Config()  # the library's defaults are V3's
    with torch.device("meta"):
        parameters = sum(p.numel() for p in DeepseekV3ForCausalLM(config).parameters())
    size = load_recipe("r1-671b").models.base_size
    assert size.parameters == parameters
    embedding = config.vocab_size * config.hidden_size
    assert size.active_parameters == matrix_weights(config) + embedding
    assert size.cache_width == config.kv_lora_rank + config.qk_rope_head_dim


def test_flops_of_a_pass():
    config = Qwen2Config(
        hidden_size=8, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, vocab_size=100,
    )  # fmt: skip
    # queries and outputs 2 · 8 · 8, keys and values 2 · 8 · 4, three matrices of 8 · 16; the head
    weights = 3 * (128 + 64 + 384) + 800
    assert matrix_weights(config) == weights
    flops = 6.0 * weights * 9 + 6.0 * 3 * 8 * (25 + 16)
    assert training_flops(config, [5, 4]) == flops
    masks = {"prompt_mask": torch.ones(1, 2), "completion_mask": torch.ones(1, 3)}
    meter = FlopMeter(config, torch.device("cpu"), peak=1e6)
    meter.add(masks)
    assert meter.share(2.0)["training/mfu"] == pytest.approx(
        training_flops(config, [5]) / 2.0 / 1e6
    )
    silent = FlopMeter(config, torch.device("cpu"))
    silent.add(masks)
    assert silent.share(1.0) == {}


def test_peaks_by_the_driver_s_names():
    assert peak_of("NVIDIA H100 80GB HBM3") == 9.89e14
    assert peak_of("NVIDIA H100 PCIe") == 7.56e14
    assert peak_of("NVIDIA H800") == 9.89e14
    assert peak_of("NVIDIA H20") == 1.48e14
    assert peak_of("NVIDIA A100-SXM4-80GB") == 3.12e14
    assert peak_of("Quadro P400") is None
