"""``r1 up`` as a user runs it: a process of its own on free ports, and commands beside it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 900.0
"""A machine that does other things at the same time is slow; what never happens is the failure."""


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true answer of a condition."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.25)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Platform:
    """A state folder and the platform that serves it."""

    def __init__(self, home: Path, options: Sequence[str] = ()) -> None:
        self.home = home
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until everything works."""
        command = [sys.executable, "-m", "flows.cli", "up", "--home", str(self.home)]
        ports = ["--prefect-port", "0", "--mlflow-port", "0", "--dashboard-port", "0"]
        with (self.home / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *ports, *self._options],
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for(self.works, "a platform that works")

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Stop it as Ctrl-C does; its exit code."""
        assert self._process is not None
        self._process.send_signal(how)
        code = self._process.wait(120)
        self._process = None
        return code

    def parts(self) -> dict[str, dict[str, Any]]:
        """What ``r1 up`` says of its parts; nothing while there is nothing to say."""
        try:
            text = (self.home / "up" / "platform.json").read_text()
        except FileNotFoundError:
            return {}
        found: dict[str, dict[str, Any]] = json.loads(text)["parts"]
        return found

    def works(self) -> bool:
        """Whether all parts are at work."""
        assert self._process is None or self._process.poll() is None, self.log()
        return bool(self.parts()) and all(part["works"] for part in self.parts().values())

    def log(self) -> str:
        """What it printed."""
        return (self.home / "up.log").read_text()

    def kill(self, name: str) -> None:
        """``kill -9`` a part with all it started, and wait until it is back."""
        before = self.parts()[name]
        os.killpg(before["pid"], signal.SIGKILL)
        wait_for(lambda: self.parts()[name]["starts"] > before["starts"], f"another {name}")
        wait_for(self.works, "a platform that works again")

    def r1(self, *words: str, code: int = 0) -> str:
        """Run a command beside it; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words, "--home", str(self.home)],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the store; none while there is no store, or it is just being made."""
        path = self.home / "store.db"
        if not path.exists():
            return []
        connection = sqlite3.connect(path, timeout=30)
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return []
        finally:
            connection.close()

    def retrainings(self) -> list[tuple[Any, ...]]:
        """Start, state, outcome, run and attempts of each, oldest first."""
        return self.rows(
            "SELECT start, state, outcome, run_id, attempts FROM retrainings ORDER BY id"
        )

    def champion_of_mlflow(self) -> str:
        """The version that ``models:/r1@champion`` names, asked of the MLflow server."""
        from mlflow import MlflowClient

        client = MlflowClient(self.parts()["mlflow"]["address"])
        return str(client.get_model_version_by_alias("r1", "champion").version)

    def _environment(self) -> dict[str, str]:
        ours = ("PREFECT", "R1_", "MLFLOW")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return kept | {"OMP_NUM_THREADS": "1"}


@contextmanager
def running(home: Path, *options: str) -> Iterator[Platform]:
    """A platform that works, and is gone at the end with everything it started."""
    platform = Platform(home, options)
    try:
        platform.start()
        yield platform
    finally:
        pids = [part["pid"] for part in platform.parts().values() if part["pid"]]
        assert platform.stop() == 0
        wait_for(lambda: not any(map(alive, pids)), "the end of every part", 30)


@contextmanager
def listener() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web address of this machine, and the JSON bodies it was sent."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            bodies.append(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/changes", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
