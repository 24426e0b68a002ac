"""The registry read without MLflow says what MLflow's own client says, by tables and by REST."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from services.errors import StoreError
from services.mlflow_store import open_client
from services.model_records import TAGS, ModelRecords, ServerRecords, open_records
from services.store import open_store
from services.subprocesses import free_port
from tests.dashboard import registered
from tests.e2e.platform_run import wait_for


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    url = f"sqlite:///{tmp_path / 'store.db'}"
    open_store(url).close()
    registered.register(tmp_path, url, "test-data-s0-5eed5eed")
    return tmp_path


def require_the_same(records: ModelRecords, home: Path) -> None:
    """Compare with the client on the tables of ``home``."""
    client = open_client(home)
    (model,) = client.search_registered_models()
    assert records.models() == [model.name] == [registered.MODEL]
    told = client.get_registered_model(model.name).aliases
    assert records.aliases(model.name) == {alias: int(number) for alias, number in told.items()}
    found = client.search_model_versions(f"name = '{model.name}'", order_by=["version_number DESC"])
    assert records.latest(model.name) == int(found[0].version) == 3
    assert [record.number for record in records.versions(model.name, 3, 2)] == [3, 2]
    assert [record.number for record in records.versions(model.name, 1, 9)] == [1]
    for record, entity in zip(records.versions(model.name, 3, 9), found, strict=True):
        assert (record.number, record.created) == (int(entity.version), entity.creation_timestamp)
        assert record.tags == {name: entity.tags[name] for name in TAGS if name in entity.tags}
        assert {"stage", "digest", "evaluation"} <= record.tags.keys()
    assert records.latest("nobody") == 0
    assert records.versions("nobody", 9, 9) == []


def test_the_tables_say_what_the_client_says(home: Path) -> None:
    require_the_same(open_records(home), home)


@pytest.mark.slow
def test_a_server_says_what_the_client_says(home: Path) -> None:
    port = free_port()
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"]
    with subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}"

            def answers() -> bool:
                try:
                    return httpx.get(f"{address}/health").is_success
                except httpx.TransportError:
                    return False

            wait_for(answers, "a server that works")
            require_the_same(ServerRecords(address), home)
        finally:
            os.killpg(server.pid, 9)


def test_pages_that_read_it_do_not_import_mlflow(home: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from services.catalog import open_catalog\n"
        "from services.views import open_views\n"
        f"home = Path({str(home)!r})\n"
        "catalog = open_catalog(home, open_views(f'sqlite:///{home}/store.db'))\n"
        "assert catalog.versions('r1') and catalog.models()\n"
        "assert 'mlflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_server_that_is_away_names_the_mend() -> None:
    with pytest.raises(StoreError, match="MLFLOW_TRACKING_URI"):
        ServerRecords("http://127.0.0.1:9").models()


def test_a_file_that_is_no_database_names_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_text("no database at all " * 99)
    with pytest.raises(StoreError, match="MLflow cannot use"):
        open_records(tmp_path).models()
