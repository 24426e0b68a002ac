"""The services of docker-compose.yml as plain processes: its commands and variables, a real
PostgreSQL with a database for store, MLflow and Prefect each, and a run that goes through all.

Names of containers become addresses of this machine; nothing else of the file is changed.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
import yaml

from flows.supervisor import Part, Supervisor
from tests.e2e.platform_run import wait_for
from tests.flows.conftest import MICRO
from tests.postgres import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

ROOT = Path(__file__).parents[2]
PORTS = {"postgres": 5432, "mlflow": 5000, "prefect": 4200, "dashboard": 8501}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def on_this_machine(text: str, cluster: Cluster, state: Path) -> str:
    """The file with containers' names and folders replaced by what there is here."""
    ports = {name: free_port() for name in PORTS} | {"postgres": cluster.port}
    login = re.sub(r".*//(.*)@.*", r"\1", cluster.url("r1"))
    text = text.replace("r1:${R1_DB_PASSWORD:-r1}@", f"{login}@")
    for name, port in PORTS.items():
        text = text.replace(f"{name}:{port}", f"127.0.0.1:{ports[name]}")
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ports[name]}")
        text = text.replace(f"port {port}", f"port {ports[name]}")
    return text.replace("0.0.0.0", "127.0.0.1").replace("/state", str(state))


def part_of(name: str, service: dict) -> Part:
    words = shlex.split(service["command"])
    place = Path(sys.executable).parent
    words[0] = sys.executable if words[0] == "python" else str(place / words[0])
    check = " ".join(service.get("healthcheck", {}).get("test", []))
    found = re.search(r"http://[^']+", check)
    return Part(
        name,
        tuple(words),
        service["environment"],
        health=found[0] if found else "",
        needs=tuple(need for need in service.get("depends_on", {}) if need != "postgres"),
        once=service["restart"] == "on-failure",
    )


def rows(cluster: Cluster, database: str, query: str) -> list:
    with psycopg.connect(cluster.url(database)) as connection:
        return connection.execute(query).fetchall()


def test_the_services_work_together(postgres_cluster, tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("PREFECT", "R1_", "MLFLOW")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)  # as the image's working directory
    for database in ("r1", "mlflow", "prefect"):
        postgres_cluster.new_database(database)
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    services = yaml.safe_load(on_this_machine(text, postgres_cluster, tmp_path))["services"]
    parts = [part_of(name, service) for name, service in services.items()
             if name not in {"postgres", "run"}]  # fmt: skip
    said: list[str] = []
    ready = threading.Event()
    supervisor = Supervisor(parts, tmp_path / "logs", said.append)
    thread = threading.Thread(target=supervisor.run, args=(ready.set,))
    thread.start()
    try:
        wait_for(ready.is_set, "services that work")
        assert said == [], "none had to be started twice"
        changes = [f"--set={change}" for change in ("name='micro'", *MICRO)]
        command = [str(Path(sys.executable).with_name("r1")), "run", "--until", "cold-start"]
        subprocess.run(
            [*command, *changes],
            env={**os.environ, **services["run"]["environment"], "OMP_NUM_THREADS": "1"},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        assert rows(postgres_cluster, "r1", "SELECT state FROM runs") == [("finished",)]
        steps = "SELECT max(last_step) FROM stages WHERE name = 'zero'"
        assert rows(postgres_cluster, "r1", steps) == [(3,)]
        stages = dict(rows(postgres_cluster, "mlflow", "SELECT name, status FROM runs"))
        assert len(stages) >= 2
        assert set(stages.values()) == {"FINISHED"}
        flows = "SELECT count(*) FROM flow_run WHERE state_name = 'Completed'"
        assert rows(postgres_cluster, "prefect", flows)[0][0] >= 3
        names = {
            name for (name,) in rows(postgres_cluster, "prefect", "SELECT name FROM deployment")
        }
        assert names == {"retrain", "monitor"}
        assert (tmp_path / "artifacts").is_dir()
    finally:
        supervisor.stop()
        thread.join()
