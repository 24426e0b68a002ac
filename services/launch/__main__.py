"""One training process of a launched job: ``python -m services.launch JOB.json``.

Every rank runs this. Rank 0 writes the records; a fault that a user can mend is left in a file of
its own, for the pipeline to say.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from accelerate import PartialState

from services.artifacts import write_atomically
from services.clock import WorkClock
from services.config_engine import Engine
from services.errors import R1Error
from services.launch.job import Launched, LaunchedSFT, engine_of, read_job, reward_of
from services.launch.records import RecordWriter
from services.launch.supervise import RECORDS_FILE
from services.training.checkpoints import latest_checkpoint, steps_done
from services.training.grpo import train_rl
from services.training.machine import device_of, prepare_machine
from services.training.sft import train_sft

_PR_SET_PDEATHSIG = 1


def main(path: Path) -> None:
    """Run this process's part of a job."""
    launched = read_job(path)
    engine = engine_of(launched)
    _die_with_launcher()
    prepare_machine(_share_of_threads(engine))
    state = PartialState(cpu=device_of(engine).type == "cpu")
    with state.main_process_first():
        latest_checkpoint(launched.job.work)  # removes torn ones, once
    records = RecordWriter(path.with_name(RECORDS_FILE) if state.is_main_process else None)
    clock = WorkClock()
    try:
        _train(launched, records, clock)
    except R1Error as error:
        said = json.dumps({"kind": type(error).__name__, "what": error.what, "mend": error.mend})
        write_atomically(path.with_name(f"error-{state.process_index:05}.json"), said)
        raise SystemExit(2) from error
    records.worked(clock.seconds)
    state.wait_for_everyone()
    state.destroy_process_group()


def _train(launched: Launched, records: RecordWriter, clock: WorkClock) -> None:
    if isinstance(launched, LaunchedSFT):
        records.resumed(steps_done(launched.job.work))
        train_sft(launched.job, records.step, clock, save_every=launched.save_every)
        return
    with reward_of(launched) as score:
        train_rl(launched.job, score, records, clock)


def _share_of_threads(engine: Engine) -> Engine:
    """Processes of one host share its cores."""
    threads = (engine.threads or os.cpu_count() or 1) // engine.processes
    return engine.model_copy(update={"threads": max(threads, 1)})


def _die_with_launcher() -> None:
    """Let the system end this process when its launcher is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
