"""What a recipe would take: commands, devices, memory and disk, completions and tokens by stage.

Forecasts come from parameter counts, not from loading anything. Formulas:

- *training memory of a device*: 16 bytes a weight (float32 weight, gradient, two moments of Adam)
  and 4 for the reference of a KL term, over all devices where the model is spread; activations
  (with recomputation, the input of each layer; without, 34 bytes for each token and unit of width
  at 16 bit, Korthikanti et al. 2205.05198, attention scores not counted); logits in float32.
- *cache*: what sampled tokens leave behind, for the sequences that are decoded at a time.
- *disk*: what ``services.training.disk`` forecasts, the result and the checkpoints beside it.

Completions and tokens are upper bounds: every completion as long as it may be. Left out: prompts,
fragmentation, the buffers of collective operations, and time.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from services.config import RL, SFT, Curation, Engine, Recipe
from services.config_engine import ModelSize
from services.errors import RecipeError
from services.launch.command import LOOPBACK, launch_words, launches, on_host, shards
from services.training.disk import disk_by_stage, forecast, parameters_of

GIB = 2**30
PORT = 29_500
EVALUATED = 9
"""Checkpoints that the last stage measures."""
ACTIVATION_BYTES = 34


@dataclass(frozen=True, slots=True)
class StageForecast:
    """One stage of a recipe before it runs. Sizes in GiB; None where nothing is known or used."""

    stage: str
    kind: str
    commands: tuple[str, ...]
    """What is started, one command for each host."""
    devices: int
    steps: int = 0
    completions: int = 0
    tokens: int = 0
    """Sampled or trained on, at most."""
    device_gib: float | None = None
    """Training memory of one device, at most."""
    cache_gib: float | None = None
    """Keys and values of the sequences that are sampled at a time, over all devices."""
    disk_gib: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe as a whole."""

    recipe: str
    nodes: int
    devices: int
    """GPUs, or processes where there are none."""
    launcher: str
    """How training stages run."""
    base_parameters: int
    student_parameters: int
    stages: tuple[StageForecast, ...]
    completions: int
    tokens: int
    disk_gib: float
    """At the fullest moment."""
    obstacles: tuple[str, ...]
    """What would stop a stage of it, as far as numbers tell."""


def plan(recipe: Recipe, home: Path, source: str) -> Plan:
    """Forecast every stage of a recipe.

    Args:
        recipe: The recipe.
        home: State folder; job files of launched stages lie in it.
        source: Name or path that the recipe was loaded by, as ``r1 run`` takes it.

    Raises:
        RecipeError: The weight of a model is neither stated nor to be read.
        LaunchError: The accelerate configuration is missing.
    """
    base = model_size(recipe.models.base, recipe.models.base_size, home)
    student = model_size(recipe.models.student, recipe.models.student_size, home)
    engine = recipe.engine
    disks = {
        disk.stage: disk for disk in disk_by_stage(recipe, base.parameters, student.parameters)
    }
    stages = tuple(
        replace(stage, disk_gib=(disk.kept + disk.work) / GIB) if disk else stage
        for stage in _stages(recipe, base, student, home, source)
        for disk in [disks.get(stage.stage)]
    )
    return Plan(
        recipe=recipe.name,
        nodes=engine.nodes,
        devices=engine.nodes * engine.processes,
        launcher=engine.accelerate_config if launches(engine) else "this process",
        base_parameters=base.parameters,
        student_parameters=student.parameters,
        stages=stages,
        completions=sum(stage.completions for stage in stages),
        tokens=sum(stage.tokens for stage in stages),
        disk_gib=forecast(list(disks.values())) / GIB,
        obstacles=tuple(_obstacles(recipe)),
    )


_OF_BASE = ("zero", "dev1", "dev2", "dev3", "r1")


def model_size(name: str, stated: ModelSize, home: Path) -> ModelSize:
    """What a model weighs: as the recipe states it, else as its folder says.

    Raises:
        RecipeError: Neither does.
    """
    if stated.parameters:
        return stated
    kind, _, rest = name.partition(":")
    bundled = Path(__file__).parent / "bundled" / rest
    folder = {"bundled": bundled, "package": home / "models" / rest}.get(kind, Path(name))
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise RecipeError(
            f"nothing says what the model {name} weighs",
            "State its parameters in the recipe, under models.base_size or models.student_size",
        )
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return ModelSize(
        parameters=parameters_of(folder),
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        vocabulary=config["vocab_size"],
        cache_width=2 * heads * width,
    )


def _stages(
    recipe: Recipe, base: ModelSize, student: ModelSize, home: Path, source: str
) -> Iterator[StageForecast]:
    engine = recipe.engine
    commands = {
        name: tuple(_commands(engine, home, source, name, trains=True))
        for name in (*_OF_BASE, "distill", "student-rl")
    }
    here = {
        name: tuple(_commands(engine, home, source, name, trains=False))
        for name in ("cold-start", "sft-set", "preference", "evaluate")
    }
    cold = _kept(recipe.cold_start, recipe)
    teach = _kept(recipe.sft_set, recipe)
    yield _rl("zero", recipe.zero, base, engine, commands["zero"])
    yield _curation("cold-start", recipe.cold_start, base, engine, here["cold-start"])
    yield _sft("dev1", recipe.dev1, cold, base, engine, commands["dev1"])
    yield _rl("dev2", recipe.dev2, base, engine, commands["dev2"])
    yield _curation("sft-set", recipe.sft_set, base, engine, here["sft-set"])
    yield _sft("dev3", recipe.dev3, teach, base, engine, commands["dev3"])
    if recipe.problems.general:
        preference = recipe.preference
        asked = 2 * 2 * preference.prompts * preference.samples_per_prompt
        yield StageForecast(
            "preference", "preference", here["preference"], 1, 0, asked,
            asked * preference.max_new_tokens,
        )  # fmt: skip
    yield _rl("r1", recipe.r1, base, engine, commands["r1"])
    yield _sft("distill", recipe.distill, teach, student, engine, commands["distill"])
    yield _rl("student-rl", recipe.student_rl, student, engine, commands["student-rl"])
    measured = recipe.evaluation
    levels = len(set(recipe.problems.levels)) if recipe.problems.source == "countdown" else 1
    asked = EVALUATED * measured.samples * measured.problems_per_level * levels
    if recipe.problems.general:
        asked += EVALUATED * measured.general_prompts * measured.general_samples
    yield StageForecast(
        "evaluate", "evaluation", here["evaluate"], 1, EVALUATED, asked,
        asked * measured.max_new_tokens, cache_gib=_cache(base, engine, measured.max_new_tokens),
    )  # fmt: skip


def _commands(
    engine: Engine, home: Path, source: str, stage: str, *, trains: bool
) -> Iterator[str]:
    """What a stage starts. KEY stands for the digest of what decides its result."""
    if not (trains and launches(engine)):
        yield shlex.join(["r1", "run", "--recipe", source, "--until", stage])
        return
    job = home / "work" / f"{stage}-KEY" / "launch" / "job.json"
    hosts = [f"HOST{n}" for n in range(engine.nodes)] if engine.nodes > 1 else [LOOPBACK]
    for rank, host in enumerate(hosts):
        yield shlex.join(on_host(launch_words(engine, job, rank, hosts[0], PORT), host, {}))


def _rl(
    name: str, rl: RL, size: ModelSize, engine: Engine, commands: tuple[str, ...]
) -> StageForecast:
    batch = rl.prompts_per_step * rl.group_size
    later = max(rl.steps - rl.max_new_tokens_later_from, 0) if rl.max_new_tokens_later else 0
    completions = rl.steps * batch // rl.epochs_per_rollout
    tokens = batch * ((rl.steps - later) * rl.max_new_tokens + later * rl.max_new_tokens_later)
    longest = max(rl.max_new_tokens, rl.max_new_tokens_later)
    reference = 4 if rl.kl_beta > 0 else 0
    return StageForecast(
        name,
        "rl",
        commands,
        engine.nodes * engine.processes,
        rl.steps,
        completions,
        tokens // rl.epochs_per_rollout,
        _training(size, engine, longest, 16 + reference),
        _cache(size, engine, longest),
    )


def _sft(
    name: str, sft: SFT, rows: int, size: ModelSize, engine: Engine, commands: tuple[str, ...]
) -> StageForecast:
    trained = round(rows * sft.epochs)
    return StageForecast(
        name,
        "sft",
        commands,
        engine.nodes * engine.processes,
        steps=max(1, round(trained / sft.batch_size)),
        tokens=trained * sft.max_length,
        device_gib=_training(size, engine, sft.max_length, 16),
    )


def _curation(
    name: str, curation: Curation, size: ModelSize, engine: Engine, commands: tuple[str, ...]
) -> StageForecast:
    completions = curation.problems * curation.samples_per_problem
    tokens = completions * curation.max_new_tokens
    cache = _cache(size, engine, curation.max_new_tokens)
    return StageForecast(name, "curation", commands, 1, 0, completions, tokens, cache_gib=cache)


def _kept(curation: Curation, recipe: Recipe) -> int:
    """Most rows that a curation can keep."""
    each = min(curation.keep_per_problem, curation.samples_per_problem)
    return curation.problems * each + (curation.general_rows if recipe.problems.general else 0)


def _obstacles(recipe: Recipe) -> Iterator[str]:
    engine = recipe.engine
    processes = engine.nodes * engine.processes
    for name in ("zero", "dev2", "r1", "student_rl"):
        rl: RL = getattr(recipe, name)
        if rl.prompts_per_step % processes:
            yield (
                f"{name}: {rl.prompts_per_step} prompts in a step cannot be shared by "
                f"{processes} processes"
            )
    if shards(engine) and engine.rollouts == "local":
        yield "the local sampler cannot read a model that is spread over processes"


def _weights_gib(size: ModelSize, bytes_each: int) -> float:
    return size.parameters * bytes_each / GIB


def _training(size: ModelSize, engine: Engine, longest: int, bytes_each: int) -> float:
    """Training memory of one device in GiB; ``longest`` is the longest row in tokens."""
    parts = engine.nodes * engine.processes if shards(engine) else 1
    tokens = max(engine.micro_batch_tokens, longest)
    number = 2 if engine.precision == "bfloat16" else 4
    each = number if engine.gradient_checkpointing else ACTIVATION_BYTES * number // 2
    activations = tokens * size.width * size.layers * each
    logits = tokens * size.vocabulary * 4
    return _weights_gib(size, bytes_each) / parts + (activations + logits) / GIB


def _cache(size: ModelSize, engine: Engine, longest: int) -> float:
    number = 4 if engine.vllm.dtype in ("auto", "float32") else 2
    return engine.batch_size * longest * size.layers * size.cache_width * number / GIB
