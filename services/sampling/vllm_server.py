"""vLLM as a server process that lives as long as a stage samples.

vLLM's pins do not agree with those of this environment, so it has one of its own: ``make vllm``
builds ``.venv-vllm`` (``R1_VLLM`` names another). The server listens on a free loopback port behind
a random key, and ends with its whole process group when the block ends, and with this process when
that is killed. Its output is kept in a file until then; the last lines of it explain a failure.
"""

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import torch

from services.config_engine import Engine
from services.errors import R1Error
from services.sampling.endpoint import Place
from services.subprocesses import end_group, free_port, last_lines, start_guarded

ENVIRONMENT: Final = Path(__file__).parents[2] / ".venv-vllm"
POLL_SECONDS: Final = 0.25
SAY_EVERY_SECONDS: Final = 10.0
SERVER_MEMORY_SHARE: Final = 0.9


class VllmError(R1Error, RuntimeError):
    """vLLM is not installed, or its server does not start."""


def vllm_python() -> Path:
    """The interpreter of vLLM's environment.

    Raises:
        VllmError: There is none.
    """
    folder = Path(os.environ.get("R1_VLLM") or ENVIRONMENT)
    python = folder / "bin" / "python"
    if not python.exists():
        raise VllmError(
            f"vLLM is not installed: there is no {python}",
            "Install it with make vllm, or sample with --set engine.sampler=local",
        )
    return python


@contextmanager
def vllm_server(
    checkpoint: Path, engine: Engine, say: Callable[[str], None] = lambda _: None
) -> Iterator[Place]:
    """Serve a checkpoint while the block runs.

    Args:
        checkpoint: A Hugging Face folder.
        engine: Its ``vllm`` settings, batch size and threads.
        say: Told how the start goes, a line at a time.

    Raises:
        VllmError: vLLM is not installed, or the server ends or is not up in time.
    """
    python = vllm_python()
    place = Place(
        f"http://127.0.0.1:{free_port()}/v1", checkpoint.name, secrets.token_urlsafe(16), True
    )
    with tempfile.NamedTemporaryFile(prefix="r1-vllm-", suffix=".log") as log:
        process = start_guarded(
            [str(python), *server_arguments(checkpoint, engine, place)],
            log.file,
            server_environment(engine, place),
        )
        try:
            _wait_until_healthy(process, place, Path(log.name), engine, say)
            yield place
        except VllmError:
            raise
        except Exception as error:
            if process.poll() is None:
                raise
            raise _ended(process, Path(log.name)) from error  # which is why it did not answer
        finally:
            end_group(process)


def server_arguments(checkpoint: Path, engine: Engine, place: Place) -> list[str]:
    """The words after ``python`` that serve a checkpoint as the sampler expects it."""
    vllm = engine.vllm
    port = place.url.removesuffix("/v1").rpartition(":")[2]
    words = ["-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", port]
    words += ["--model", str(checkpoint), "--served-model-name", place.model]
    words += ["--dtype", vllm.dtype, "--max-num-seqs", str(engine.batch_size)]
    words += ["--tensor-parallel-size", str(vllm.tensor_parallel)]
    # Nothing but what a request says: a checkpoint's own defaults would change the distribution.
    words += ["--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"]
    words += ["--gpu-memory-utilization", str(SERVER_MEMORY_SHARE)]
    if not torch.cuda.is_available():
        # A prompt that is read in parts is seeded anew after each, which vLLM (0.31) cannot on a
        # processor: "CPU Generator does not use offset", and the server ends.
        words += ["--no-enable-chunked-prefill"]
    if vllm.max_model_length:
        words += ["--max-model-len", str(vllm.max_model_length)]
    return words


def server_environment(engine: Engine, place: Place) -> dict[str, str]:
    """The environment of the server: ours without Python's paths, silent, offline."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "OMP_", "KMP_", "VIRTUAL_ENV"))
    }
    threads = engine.threads or os.cpu_count() or 1
    return ours | {
        "VLLM_API_KEY": place.api_key,
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(engine.vllm.cache_gib),
        # By itself it keeps a core for its front end, which is half of a small machine.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
    }


def _wait_until_healthy(
    process: "subprocess.Popen[bytes]",
    place: Place,
    log: Path,
    engine: Engine,
    say: Callable[[str], None],
) -> None:
    started = said = time.monotonic()
    health = place.url.removesuffix("/v1") + "/health"
    say(f"vLLM loads {place.model}")
    while True:
        if process.poll() is not None:
            raise _ended(process, log)
        try:
            if httpx.get(health, timeout=2.0).is_success:
                say(f"vLLM serves {place.model} after {time.monotonic() - started:.0f} s")
                return
        except httpx.TransportError:
            pass  # not yet
        now = time.monotonic()
        if now - started > engine.vllm.startup_seconds:
            raise VllmError(
                f"the vLLM server is not up after {now - started:.0f} s: {last_lines(log)}",
                "Raise engine.vllm.startup_seconds, or sample with --set engine.sampler=local",
            )
        if now - said > SAY_EVERY_SECONDS:
            said = now
            say(f"vLLM loads {place.model}: {now - started:.0f} s")
        time.sleep(POLL_SECONDS)


def _ended(process: "subprocess.Popen[bytes]", log: Path) -> VllmError:
    return VllmError(
        f"the vLLM server ended with code {process.returncode}: {last_lines(log)}",
        "Change engine.vllm, or sample with --set engine.sampler=local",
    )
