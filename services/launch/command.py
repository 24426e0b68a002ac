"""The command lines that start a job: one for each host. Pure, so that a plan can print them."""

import os
import re
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from services.config_engine import Engine
from services.errors import R1Error

CONFIGURATIONS: Final = Path(__file__).parents[2] / "infra" / "accelerate"
LOOPBACK: Final = "127.0.0.1"
HOST_COMMAND: Final = "ssh -tt {host} {command}"
CARRIED: Final = (
    "R1_", "PYTHONPATH", "OMP_", "NCCL_", "GLOO_", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "TRL_",
    "DO_NOT_TRACK",
)  # fmt: skip
"""Variables that a command on another host is given; never a key, as command lines are public."""
_TYPE: Final = re.compile(r"^distributed_type:\s*['\"]?(\w+)", re.MULTILINE)


class LaunchError(R1Error, RuntimeError):
    """A job cannot be launched, or it failed."""


class CrashError(LaunchError):
    """A launched job ended without saying why; it may go through when it is tried again."""


def launches(engine: Engine) -> bool:
    """Whether training stages run in processes of their own."""
    return engine.processes > 1 or engine.nodes > 1


def configuration(engine: Engine) -> Path:
    """The accelerate configuration that the engine names.

    Raises:
        LaunchError: There is no such file.
    """
    name = engine.accelerate_config
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGURATIONS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in CONFIGURATIONS.glob("*.yaml")))
        raise LaunchError(
            f"there is no accelerate configuration {name!r}",
            f"Choose one of {known}, or give the path of a .yaml file",
        )
    return path.absolute()


def distributed_type(engine: Engine) -> str:
    """What a configuration calls ``distributed_type``: MULTI_GPU, FSDP, DEEPSPEED, …."""
    path = configuration(engine)
    found = _TYPE.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise LaunchError(
            f"{path} does not say its distributed_type", "Write it with: accelerate config"
        )
    return found[1]


def shards(engine: Engine) -> bool:
    """Whether each process holds only a part of the model."""
    return launches(engine) and distributed_type(engine) in ("FSDP", "DEEPSPEED")


def hosts_of(engine: Engine, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Addresses of the machines to train on.

    Raises:
        LaunchError: The environment names more or fewer than the engine asks for.
    """
    if engine.nodes == 1:
        return [LOOPBACK]
    named = [host.strip() for host in environment.get("R1_HOSTS", "").split(",") if host.strip()]
    if len(named) != engine.nodes:
        raise LaunchError(
            f"engine.nodes is {engine.nodes}, and R1_HOSTS names {len(named)} hosts",
            "Set R1_HOSTS to their addresses, separated by commas, or change engine.nodes",
        )
    return named


def launch_words(
    engine: Engine, job: Path, rank: int, address: str, port: int, python: str = sys.executable
) -> list[str]:
    """The command of one host: ``accelerate launch`` of a job file.

    Args:
        engine: Processes, nodes, configuration and precision.
        job: The job file, on storage that all hosts share.
        rank: Which host, from 0.
        address: Of the host of rank 0.
        port: On that host; free.
        python: The interpreter.
    """
    words = [python, "-m", "accelerate.commands.launch"]
    words += ["--config_file", str(configuration(engine))]
    words += ["--num_machines", str(engine.nodes)]
    words += ["--num_processes", str(engine.nodes * engine.processes)]
    words += ["--machine_rank", str(rank)]
    words += ["--main_process_ip", address, "--main_process_port", str(port)]
    if engine.precision == "bfloat16":
        words += ["--mixed_precision", "bf16"]
    return [*words, "-m", "services.launch", str(job)]


def on_host(
    words: Sequence[str], host: str, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """A command as it is run on a host: as it is on this one, else through ``R1_HOST_COMMAND``."""
    if host in (LOOPBACK, "localhost", socket.gethostname()):
        return list(words)
    carried = [
        f"{name}={value}"
        for name, value in sorted(environment.items())
        if name.startswith(CARRIED) and not name.endswith(("_KEY", "_PASSWORD", "_TOKEN", "_URL"))
    ]
    inner = shlex.join(["env", *carried, *words])
    command = f"cd {shlex.quote(str(Path.cwd()))} && exec {inner}"
    template = shlex.split(environment.get("R1_HOST_COMMAND") or HOST_COMMAND)
    return [word.replace("{host}", host).replace("{command}", command) for word in template]
