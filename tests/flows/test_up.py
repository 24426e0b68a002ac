"""What ``r1 up`` asks for before it starts, and how other commands find what it serves."""

import json
import socket

import pytest

from flows.environment import PLATFORM_FILE, PLATFORM_LOCK, served_addresses
from flows.prefect_server import mend_bulk_inserts
from flows.supervisor import Watched
from flows.up import Ports, faults, platform_parts, settle_ports, write_platform_file
from services.artifacts import only_one
from services.errors import PlatformError
from services.store import open_store


def test_zero_takes_free_ports_and_a_taken_one_is_named():
    settled = settle_ports(Ports(0, 0, 0))
    assert len(set(settled)) == 3
    assert all(settled)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PlatformError, match=rf"port {port} for dashboard .*--dashboard-port"):
            settle_ports(Ports(0, 0, port))


def test_two_parts_cannot_have_one_port():
    free = settle_ports(Ports(0, 0, 0)).mlflow
    with pytest.raises(PlatformError, match="the same port"):
        settle_ports(Ports(free, free, 0))


def test_every_part_listens_on_loopback_and_needs_parts_that_there_are(tmp_path):
    parts = {part.name: part for part in platform_parts(tmp_path, Ports(1, 2, 3), ["--x", "1"])}
    assert set(parts) == {"prefect", "mlflow", "deployments", "worker", "dashboard"}
    for part in parts.values():
        assert "0.0.0.0" not in part.command
        assert set(part.needs) < set(parts)
        assert part.environment["R1_HOME"] == str(tmp_path)
        assert part.environment["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
        if part.address:
            assert part.address.startswith("http://127.0.0.1:")
            assert part.health.startswith(part.address)
    assert parts["deployments"].once
    assert parts["deployments"].command[-2:] == ("--x", "1")


def test_commands_use_what_is_served_and_only_while_it_is(tmp_path):
    ports = Ports(11, 12, 13)
    assert served_addresses(tmp_path) == {}
    parts = [Watched(part) for part in platform_parts(tmp_path, ports)]
    with only_one(tmp_path / PLATFORM_LOCK):
        assert served_addresses(tmp_path) == {}, "it is just starting"
        write_platform_file(tmp_path, ports, parts)
        assert served_addresses(tmp_path) == {
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:12",
            "PREFECT_API_URL": "http://127.0.0.1:11/api",
        }
    assert (tmp_path / PLATFORM_FILE).exists()
    assert served_addresses(tmp_path) == {}, "what a killed one left does not count"
    said = json.loads((tmp_path / PLATFORM_FILE).read_text())
    assert said["parts"]["worker"]["works"] is False


def test_a_store_of_another_schema_is_in_the_way(tmp_path, monkeypatch):
    monkeypatch.delenv("R1_STORE_URL", raising=False)
    assert list(faults(tmp_path, Ports(0, 0, 0))) == []
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    with store._writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    store.close()
    (fault,) = faults(tmp_path, Ports(0, 0, 0))
    assert "r1 store upgrade" in fault.mend


def test_prefect_can_insert_scheduled_runs_in_bulk():
    """As its scheduler does, with the state among the values."""
    from prefect.server.database.orm_models import FlowRun

    mend_bulk_inserts()
    assert mend_bulk_inserts() is False, "once is enough"
    setter = getattr(FlowRun.state, "_bulk_dml_setter", None)
    if setter is None:
        pytest.skip("SQLAlchemy 2.0 passes hybrid attributes over")
    mapping = {"state": {"type": "SCHEDULED"}, "name": "run"}
    setter("state")(mapping)
    assert mapping == {"state": {"type": "SCHEDULED"}, "name": "run"}
