"""Where state lives, settled before Prefect is imported (it reads its settings once).

One folder, ``R1_HOME`` (default ``.r1/``), holds the store, MLflow, Prefect's home and all
artifacts. The same variables point at servers in production; what is already set is left alone.
"""

import logging
import os
from pathlib import Path

from services.errors import ArtifactError, R1Error


def home_folder(home: Path | None = None) -> Path:
    """The state folder: the argument, else ``R1_HOME``, else ``.r1`` here."""
    return (home or Path(os.environ.get("R1_HOME", ".r1"))).absolute()


def prepare_environment(home: Path) -> None:
    """Create the state folder and point Prefect and MLflow at it.

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
    defaults = {
        "R1_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    os.environ["R1_HOME"] = str(home)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    for run_logger in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(run_logger).addFilter(_is_no_user_error)


def _is_no_user_error(record: logging.LogRecord) -> bool:
    """Whether Prefect should say it: errors that the user can mend are one line, told elsewhere."""
    error = record.exc_info[1] if record.exc_info else None
    return not (
        isinstance(error, R1Error) or record.getMessage().startswith("Finished in state Failed")
    )
