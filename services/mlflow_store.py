"""Opening MLflow: where its records lie, a new store in one piece, and errors that name the mend.

Records lie in ``mlflow.db`` and files in ``mlflow-artifacts`` of R1_HOME, or where
MLFLOW_TRACKING_URI says. MLflow takes a second to import, so it is imported when it is opened.
"""

import logging
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from services.errors import StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CONNECT_TIMEOUT_SECONDS: Final = 5.0


def tracking_uri(home: Path) -> str:
    """Where MLflow keeps its records: MLFLOW_TRACKING_URI, else SQLite in ``home``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.resolve() / 'mlflow.db'}"


def has_server(uri: str) -> bool:
    """Whether MLflow is behind a server, which keeps files where we may not see them."""
    return urlsplit(uri).scheme in {"http", "https"}


def open_client(home: Path) -> "MlflowClient":
    """MLflow's client, quiet, without telemetry, on a store of the present schema.

    Raises:
        StoreError: The store or the server cannot be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for talkative in ("mlflow", "alembic"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    with errors_named(home):
        uri = tracking_uri(home)
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            _create_database(home / "mlflow.db")
        _require_answer(uri)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def errors_named(home: Path) -> Iterator[None]:
    """What a disk or a server refuses becomes a StoreError that names the mend."""
    from sqlalchemy.exc import DatabaseError

    uri = re.sub("//[^/@]+@", "//***@", tracking_uri(home))
    try:
        yield
    except Exception as error:
        if not isinstance(error, DatabaseError | OSError) and not _is_of_mlflow(error):
            raise
        if "out-of-date database schema" in str(error):
            mend = f"Make a copy of it, then run: mlflow db upgrade {uri}"
        elif os.environ.get("MLFLOW_TRACKING_URI"):
            mend = "Start the MLflow server, or mend or unset MLFLOW_TRACKING_URI"
        else:
            mend = f"Mend the folder {home}, or choose another one with R1_HOME"
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise StoreError(f"MLflow cannot use {uri}: {reason}", mend) from error


def _is_of_mlflow(error: Exception) -> bool:
    """Whether MLflow raised it; whoever reads the registry without MLflow need not import it."""
    exceptions = sys.modules.get("mlflow.exceptions")
    return exceptions is not None and isinstance(error, exceptions.MlflowException)


def _require_answer(uri: str) -> None:
    """MLflow's own retries take minutes to say that a server is not there."""
    address = urlsplit(uri)
    if has_server(uri):
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname, port), _CONNECT_TIMEOUT_SECONDS).close()


def _create_database(path: Path) -> None:
    """Make MLflow's tables beside ``path`` and link them into place when they are whole.

    MLflow commits its hundreds of migrations one by one: a process killed among them leaves a file
    that no later one can open, and two processes at once get in each other's way. It also takes
    five times as long as without waiting for the disk.
    """
    if path.exists():
        return
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine, event

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        unfinished = Path(folder) / path.name
        engine = create_engine(f"sqlite:///{unfinished.resolve()}")
        event.listen(
            engine,
            "connect",
            lambda connection, _: connection.executescript(
                "PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY"
            ),
        )
        _initialize_tables(engine)  # type: ignore[no-untyped-call]
        engine.dispose()
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        # FileExistsError: another process was first, and its database is as good.
        with suppress(FileExistsError):
            os.link(unfinished, path)
