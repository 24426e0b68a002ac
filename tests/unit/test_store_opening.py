import os
import sqlite3
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import services.store.alarms
import services.store.approvals
import services.store.ledger
import services.store.pool
import services.store.ratings
import services.store.removals
import services.store.retrainings
import services.store.webhooks  # noqa: F401 - their tables are part of the schema
from services import views
from services.errors import StoreError
from services.store import MissingStoreError, Store, open_store, store_url, upgrade_store
from services.store.opening import MIGRATIONS
from services.store.schema import REVISION, Base


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return url_of(tmp_path)


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url)


def begin(store: Store, run: str) -> None:
    store.begin_run(run, recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}")


def test_migrations_make_exactly_the_tables_of_the_schema(store: Store, url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() == REVISION
    engine.dispose()


def test_revision_is_the_last_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_creators_at_once_make_one_store(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def create(url: str) -> None:
        try:
            open_store(url).close()
        except BaseException as error:
            failures.append(error)

    for folder in range(10):
        url = url_of(tmp_path / str(folder))
        threads = [threading.Thread(target=create, args=(url,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def set_revision(folder: Path, revision: str) -> None:
    with sqlite3.connect(folder / "store.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()


@pytest.mark.parametrize("revision", ["0000", "9999"])
def test_another_schema_is_refused_with_its_mend(
    store: Store, url: str, tmp_path: Path, revision: str
) -> None:
    store.close()
    set_revision(tmp_path, revision)
    for opening in (open_store, views.open_views):
        with pytest.raises(StoreError, match="r1 store upgrade") as refused:
            opening(url)
        assert revision in refused.value.what


def test_a_newer_store_is_not_touched_by_an_upgrade(store: Store, url: str, tmp_path: Path) -> None:
    set_revision(tmp_path, "9999")
    with pytest.raises(StoreError, match="Update R1flow"):
        upgrade_store(url)


def test_an_unknown_schema_cannot_be_upgraded(store: Store, url: str, tmp_path: Path) -> None:
    set_revision(tmp_path, "0000")
    with pytest.raises(StoreError, match="no version knows"):
        upgrade_store(url)


def test_upgrading_makes_a_store_and_keeps_what_is_in_it(url: str) -> None:
    upgrade_store(url)
    store = open_store(url)
    begin(store, "run")
    upgrade_store(url)
    assert [run.id for run in views.list_runs(views.open_views(url))] == ["run"]


def test_a_database_of_others_is_left_alone(tmp_path: Path, url: str) -> None:
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="cats"):
        open_store(url)


def test_a_file_that_is_no_database(tmp_path: Path, url: str) -> None:
    (tmp_path / "store.db").write_text("this is not a database, it is a letter " * 99)
    for opening in (open_store, views.open_views):
        with pytest.raises(StoreError, match="not a database"):
            opening(url)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="R1_HOME"):
        open_store(url_of(tmp_path / "file" / "home"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="R1_HOME"):
        open_store(url_of(tmp_path))


def test_a_read_only_file(store: Store, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(StoreError, match="readonly"):
        open_store(f"sqlite:///file:{tmp_path / 'store.db'}?mode=ro&uri=true")


def test_a_url_that_is_none() -> None:
    for url in ("store.db", "oracle9://x"):
        with pytest.raises(StoreError, match="R1_STORE_URL"):
            open_store(url)


def test_passwords_do_not_show() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError) as refused:
        open_store("postgresql://me:secret@127.0.0.1:1/r1")
    assert "secret" not in str(refused.value)


def test_where_the_store_lies() -> None:
    assert store_url({}) == "sqlite:///.r1/store.db"
    assert store_url({"R1_HOME": "/data"}) == "sqlite:////data/store.db"
    assert store_url({"R1_HOME": "/data", "R1_STORE_URL": "sqlite:///x"}) == "sqlite:///x"


def test_reading_neither_creates_nor_writes(tmp_path: Path, url: str) -> None:
    with pytest.raises(MissingStoreError, match="r1 run"):
        views.open_views(url)
    assert not (tmp_path / "store.db").exists()
    open_store(url).close()
    with views.open_views(url).connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM runs")
