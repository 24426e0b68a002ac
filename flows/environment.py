"""Where state lives, settled before Prefect is imported (it reads its settings once).

One folder, ``R1_HOME`` (default ``.r1/``), holds the store, MLflow, Prefect's home and all
artifacts. The same variables point at servers in production; what is already set is left alone.
While ``r1 up`` serves the folder, its servers are what commands use.
"""

import fcntl
import json
import logging
import os
from pathlib import Path
from typing import Final

from services.errors import ArtifactError, R1Error

PLATFORM_FILE: Final = "up/platform.json"
"""Below the state folder: the addresses that ``r1 up`` serves, while it does."""
PLATFORM_LOCK: Final = "up/platform.lock"


def home_folder(home: Path | None = None) -> Path:
    """The state folder: the argument, else ``R1_HOME``, else ``.r1`` here."""
    return (home or Path(os.environ.get("R1_HOME", ".r1"))).absolute()


def prefect_defaults(home: Path) -> dict[str, str]:
    """Variables of a run: quiet, without telemetry, and with all state in ``home``."""
    return {
        "R1_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }


def prepare_environment(home: Path) -> None:
    """Create the state folder and point Prefect and MLflow at it, or at what serves it.

    Raises:
        ArtifactError: The folder cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ArtifactError(
            f"cannot write to the state folder {home}: {error.strerror}",
            "Choose another one with --home or R1_HOME, or mend its permissions",
        ) from error
    os.environ["R1_HOME"] = str(home)
    for name, value in {**served_addresses(home), **prefect_defaults(home)}.items():
        os.environ.setdefault(name, value)
    for run_logger in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(run_logger).addFilter(_is_no_user_error)


def _is_no_user_error(record: logging.LogRecord) -> bool:
    """Whether Prefect should say it: errors that the user can mend are one line, told elsewhere."""
    error = record.exc_info[1] if record.exc_info else None
    return not (
        isinstance(error, R1Error) or record.getMessage().startswith("Finished in state Failed")
    )


def served_addresses(home: Path) -> dict[str, str]:
    """PREFECT_API_URL and MLFLOW_TRACKING_URI of the ``r1 up`` that serves a folder, if any does.

    A file that a killed one left does not count: its lock is free.
    """
    try:
        with (home / PLATFORM_LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return {}  # nobody holds it
    except FileNotFoundError:
        return {}
    except BlockingIOError:
        pass
    try:
        said = json.loads((home / PLATFORM_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # it is just starting
        return {}
    return {str(name): str(value) for name, value in said["environment"].items()}
