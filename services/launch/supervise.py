"""Starting a job on its hosts, retelling its records, and ending all of it whatever happens."""

import importlib.util
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services import errors
from services.clock import WorkClock
from services.config_engine import Engine
from services.launch.command import (
    CrashError,
    LaunchError,
    distributed_type,
    hosts_of,
    launch_words,
    on_host,
    shards,
)
from services.launch.job import Launched, LaunchedRL, engine_of, write_job
from services.launch.records import follow, retell
from services.subprocesses import end_group, free_port, last_lines, start_guarded
from services.training.job import StepRecorder

JOB_FILE: Final = "job.json"
RECORDS_FILE: Final = "records.jsonl"
LAST_WORDS_SECONDS: Final = 5.0
"""How long the other hosts may take to end by themselves after one has failed."""

Processes = Sequence["subprocess.Popen[bytes]"]


def run_launched(
    launched: Launched, folder: Path, recorder: StepRecorder, clock: WorkClock
) -> None:
    """Run a job in the processes and on the hosts that its engine asks for.

    Args:
        launched: The job.
        folder: For the job file, records and logs; on storage that all hosts share.
        recorder: Told about every step, in this process.
        clock: Gets the seconds that the process of rank 0 worked.

    Raises:
        LaunchError: It cannot be launched, or its processes say what a user must mend.
        CrashError: A process ended without saying why.
    """
    engine = engine_of(launched)
    refuse(launched)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("error-*.json"), *folder.glob("host-*.log")):
        old.unlink()
    write_job(folder / JOB_FILE, launched)
    records = folder / RECORDS_FILE
    records.write_text("")
    with _running(engine, folder) as processes:
        for record in follow(records, lambda: _over(processes)):
            retell(record, recorder, clock.add)
        _end_the_rest(processes)
        codes = [process.poll() for process in processes]
    _raise_failure(codes, folder)


def refuse(launched: Launched) -> None:
    """Refuse what cannot work, before anything starts.

    Raises:
        LaunchError: The message names the mend.
    """
    engine = engine_of(launched)
    hosts_of(engine)
    if distributed_type(engine) == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise LaunchError(
            f"engine.accelerate_config is {engine.accelerate_config}, and DeepSpeed is missing",
            "Install the package deepspeed, or take --set engine.accelerate_config=fsdp2",
        )
    if isinstance(launched, LaunchedRL) and shards(engine) and engine.rollouts == "local":
        raise LaunchError(
            "the local sampler cannot read a model that is spread over processes",
            "Take --set engine.rollouts=vllm-colocate, or --set engine.accelerate_config=ddp",
        )


@contextmanager
def _running(engine: Engine, folder: Path) -> Iterator[Processes]:
    """One launcher for each host; none outlives the block."""
    hosts, port = hosts_of(engine), free_port()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank, host in enumerate(hosts):
            words = launch_words(engine, folder / JOB_FILE, rank, hosts[0], port)
            with (folder / f"host-{rank}.log").open("wb") as log:
                processes.append(start_guarded(on_host(words, host), log))
        yield processes
    except OSError as error:
        raise LaunchError(
            f"cannot start the job: {error}", "Mend R1_HOST_COMMAND or the folder's permissions"
        ) from error
    finally:
        for process in processes:
            end_group(process)


def _over(processes: Processes) -> bool:
    """Whether all have ended, or one has failed and so all are to end."""
    codes = [process.poll() for process in processes]
    return None not in codes or any(codes)


def _end_the_rest(processes: Processes) -> None:
    """Give hosts a moment to end by themselves, so that each says what it has to say."""
    until = time.monotonic() + LAST_WORDS_SECONDS
    while time.monotonic() < until and any(process.poll() is None for process in processes):
        time.sleep(0.05)


def _raise_failure(codes: Sequence[int | None], folder: Path) -> None:
    """Say why hosts ended badly; None is one that we had to end."""
    if not any(codes):
        return
    for path in sorted(folder.glob("error-*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        kind = getattr(errors, said["kind"], LaunchError)
        raise kind(said["what"], said["mend"])
    rank, code = next((rank, code) for rank, code in enumerate(codes) if code)
    log = folder / f"host-{rank}.log"
    raise CrashError(
        f"the training processes of host {rank} ended with code {code}: {last_lines(log)}",
        f"{log} has all they said; run it again to go on from the last checkpoint",
    )
