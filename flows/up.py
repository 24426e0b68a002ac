"""What ``r1 up`` runs: the local platform, its addresses, and what must be free before it starts.

    prefect ── schedules, events, flow runs      mlflow ── runs, registry, webhooks
       └─ deployments (once) ─ worker            dashboard

Everything listens on loopback and keeps its state in R1_HOME, so a restart goes on where it was. A
file in ``up/`` says which addresses are served, and commands given meanwhile use them.
"""

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from flows.environment import PLATFORM_FILE, prefect_defaults
from flows.supervisor import Part, Watched
from services.artifacts import write_atomically
from services.errors import PlatformError

ROOT: Final = Path(__file__).parents[1]
POOL: Final = "r1-process"
LOOPBACK: Final = "127.0.0.1"
POLL_SECONDS: Final = 2
"""How often the worker asks for work."""
LEASES: Final = "prefect.server.concurrency.lease_storage.filesystem"


class Ports(NamedTuple):
    """Where the parts listen; 0 takes a free one."""

    prefect: int = 4200
    mlflow: int = 5000
    dashboard: int = 8501


def settle_ports(wanted: Ports) -> Ports:
    """The ports to use: those wanted, if they are free, or free ones for 0.

    Raises:
        PlatformError: A port is taken, or wanted twice.
    """
    settled: list[int] = []
    for name, port in zip(Ports._fields, wanted, strict=True):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                raise PlatformError(
                    f"port {port} for {name} cannot be opened: {error.strerror}",
                    f"End what uses it, or choose another one with --{name}-port "
                    "(0 takes a free one)",
                ) from error
            settled.append(probe.getsockname()[1])
    if len(set(settled)) < len(settled):
        raise PlatformError(
            f"two parts want the same port: {settled}", "Give each one a port of its own"
        )
    return Ports(*settled)


def platform_environment(home: Path, ports: Ports) -> dict[str, str]:
    """Variables that every part gets: one state folder, one Prefect, one MLflow."""
    return {
        **prefect_defaults(home),
        "R1_HOME": str(home),
        "MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{ports.mlflow}",
        "PREFECT_API_URL": f"http://{LOOPBACK}:{ports.prefect}/api",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "PYTHONUNBUFFERED": "1",
        # Parts find this code wherever they start.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }


def prefect_server_settings() -> dict[str, str]:
    """What Prefect's server needs here beyond its defaults."""
    return {
        # Kept in memory, leases are forgotten by a restart and what they hold never comes free.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
        # SQLite has one writer at a time, and the others wait for it.
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        # A hundred runs planned ahead would all be late after a night without the platform.
        "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "10",
    }


def platform_parts(home: Path, ports: Ports, deploy: Sequence[str] = ()) -> list[Part]:
    """The parts in the order they start.

    Args:
        home: State folder.
        ports: Where they listen.
        deploy: Options for ``r1 deploy``, which registers the deployments.
    """
    everyone = platform_environment(home, ports)
    python, web = sys.executable, f"http://{LOOPBACK}"
    return [
        Part(
            "prefect",
            (python, "-m", "flows.prefect_server",
             "--host", LOOPBACK, "--port", str(ports.prefect)),
            everyone | prefect_server_settings(),
            health=f"{web}:{ports.prefect}/api/health",
            address=f"{web}:{ports.prefect}",
        ),
        Part(
            "mlflow",
            (python, "-m", "mlflow", "server",
             "--host", LOOPBACK, "--port", str(ports.mlflow), "--workers", "1",
             "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}",
             "--artifacts-destination", str(home / "mlflow-artifacts")),
            everyone,
            health=f"{web}:{ports.mlflow}/health",
            address=f"{web}:{ports.mlflow}",
        ),
        Part(
            "deployments",
            (python, "-m", "flows.cli", "deploy", "--home", str(home), *deploy),
            everyone,
            needs=("prefect",),
            once=True,
        ),
        Part(
            "worker",
            (python, "-m", "prefect", "worker", "start",
             "--pool", POOL, "--type", "process", "--install-policy", "never"),
            everyone | {"PREFECT_WORKER_QUERY_SECONDS": str(POLL_SECONDS)},
            needs=("deployments", "mlflow"),
        ),
        Part(
            "dashboard",
            (python, "-m", "streamlit", "run", str(ROOT / "dashboard" / "app.py"),
             "--server.address", LOOPBACK, "--server.port", str(ports.dashboard),
             "--server.headless", "true"),
            everyone,
            health=f"{web}:{ports.dashboard}/_stcore/health",
            address=f"{web}:{ports.dashboard}",
            needs=("mlflow",),
        ),
    ]  # fmt: skip


def describe(watched: Sequence[Watched]) -> dict[str, dict[str, object]]:
    """What the parts are doing, as plain data."""
    return {
        one.part.name: {
            "pid": one.pid,
            "works": one.works,
            "starts": one.starts,
            "address": one.part.address,
        }
        for one in watched
    }


def write_platform_file(home: Path, ports: Ports, watched: Sequence[Watched]) -> None:
    """Tell other commands where this platform is."""
    said = {
        "pid": os.getpid(),
        "environment": _addresses(platform_environment(home, ports)),
        "parts": describe(watched),
    }
    write_atomically(home / PLATFORM_FILE, json.dumps(said, indent=2))


def remove_platform_file(home: Path) -> None:
    """Tell other commands that there is no platform any more."""
    with suppress(FileNotFoundError):
        (home / PLATFORM_FILE).unlink()


def faults(home: Path, wanted: Ports) -> Iterator[PlatformError]:
    """What would keep the platform from starting, each with its mend."""
    try:
        settle_ports(wanted)
    except PlatformError as error:
        yield error
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(place, os.W_OK):
        yield PlatformError(
            f"cannot write to {place}",
            "Choose another folder with R1_HOME, or mend its permissions",
        )
    for name, file in (("store", "store.db"), ("MLflow", "mlflow.db"), ("Prefect", "prefect")):
        path = home / file
        if path.exists() and not os.access(path, os.W_OK):
            yield PlatformError(
                f"cannot write the state of {name} in {path}", "Mend its permissions"
            )
    yield from _store_fault(home)


def _store_fault(home: Path) -> Iterator[PlatformError]:
    from services.errors import StoreError
    from services.store import MissingStoreError
    from services.store.opening import open_engine_to_read, store_url

    try:
        open_engine_to_read(store_url({**os.environ, "R1_HOME": str(home)})).dispose()
    except MissingStoreError:
        return
    except StoreError as error:
        yield PlatformError(error.what, error.mend)


def _addresses(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")}
