"""Opening a store: connections, the schema check, and errors that name the mend.

A new store is created and brought to the present schema in one transaction, so nobody ever sees
half of it, even where two processes start at once. An existing store is never changed by opening
it: another schema is an error, and ``upgrade_store`` is a step of its own.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
from sqlalchemy.pool import NullPool

from services.errors import StoreError
from services.store.schema import REVISION

MIGRATIONS: Final = Path(__file__).parents[2] / "infra" / "migrations"
BUSY_TIMEOUT_MS: Final = 30_000
"""How long SQLite waits for another writer."""
_CREATION_LOCK: Final = 0x5231  # any number that all of us share


class MissingStoreError(StoreError):
    """There is no store yet, so there is nothing to read."""


def store_url(environment: Mapping[str, str] = os.environ) -> str:
    """Where the store lies: ``R1_STORE_URL``, else SQLite in ``R1_HOME`` (default ``.r1``)."""
    home = Path(environment.get("R1_HOME") or ".r1")
    return environment.get("R1_STORE_URL") or f"sqlite:///{home / 'store.db'}"


def open_engine_to_write(url: str) -> Engine:
    """An engine on a store of the present schema; a store that is not there is created.

    Raises:
        StoreError: The store cannot be written, or has another schema.
    """
    engine = _engine(url, read_only=False)
    file = sqlite_file(engine)
    with _disposed_on_error(engine), storage_errors(engine):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        with engine.begin() as connection:
            if _lock_and_read_revision(connection) is None:
                _migrate(connection)
            require_present_schema(connection)
            # SQLite opens what it may not write without a word, and says so at the first write.
            connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
    return engine


def open_engine_to_read(url: str) -> Engine:
    """An engine that cannot write.

    Raises:
        MissingStoreError: Nothing has run yet.
        StoreError: The store cannot be read, or has another schema.
    """
    engine = _engine(url, read_only=True)
    with _disposed_on_error(engine), reading(engine) as connection:
        require_present_schema(connection)
    return engine


def upgrade_store(url: str) -> None:
    """Bring a store to the present schema; a store that is not there is created."""
    engine = _engine(url, read_only=False)
    with (
        _disposed_on_error(engine),
        storage_errors(engine),
        engine.begin() as connection,
    ):
        revision = _lock_and_read_revision(connection)
        if revision is not None and revision > REVISION:
            raise _newer(revision)
        _migrate(connection)
    engine.dispose()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for queries.

    Raises:
        MissingStoreError: There is nothing to read, or no longer.
        StoreError: The storage fails.
    """
    file = sqlite_file(engine)
    if file is not None and not file.exists():  # connecting would create it
        raise MissingStoreError(f"there is no store at {file} yet", "Start a run with: r1 run")
    with storage_errors(engine), engine.connect() as connection:
        yield connection


@contextmanager
def storage_errors(engine: Engine) -> Iterator[None]:
    """What a disk or a server refuses becomes a StoreError; our own mistakes stay what they are."""
    try:
        yield
    except (DatabaseError, sqlite3.DatabaseError, OSError) as error:
        if isinstance(error, DatabaseError) and type(error) not in {
            DatabaseError,
            OperationalError,
        }:
            raise
        reason = getattr(error, "orig", None) or error
        where = engine.url.render_as_string(hide_password=True)
        mend = (
            "Free or mend that folder, or choose another one with R1_HOME"
            if engine.dialect.name == "sqlite"
            else "Start the database server, or mend R1_STORE_URL"
        )
        lines = str(reason).strip().splitlines() or [type(reason).__name__]
        raise StoreError(f"cannot use the store {where}: {lines[0]}", mend) from error


def require_present_schema(connection: Connection) -> None:
    """Refuse a store of another schema.

    Raises:
        StoreError: It is older, newer, or no store of ours.
    """
    revision = _revision(connection)
    if revision == REVISION:
        return
    if revision is not None and revision > REVISION:
        raise _newer(revision)
    raise StoreError(
        f"the store has schema {revision or 'none'}, this version needs {REVISION}",
        "Bring it up to date with: r1 store upgrade",
    )


def sqlite_file(engine: Engine) -> Path | None:
    """The file of a SQLite store; None for other databases and for one in memory."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or database == ":memory:":
        return None
    return Path(database.removeprefix("file:").partition("?")[0])


def _newer(revision: str) -> StoreError:
    return StoreError(
        f"the store has schema {revision}, newer than {REVISION} of this version",
        "Update R1flow, then run: r1 store upgrade",
    )


def _revision(connection: Connection) -> str | None:
    """The schema revision; None for an empty database."""
    tables = inspect(connection).get_table_names()
    if "alembic_version" in tables:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        return None if found is None else str(found)
    if tables:
        raise StoreError(
            f"the database holds other tables ({tables[0]}, …) and no store of ours",
            "Name another database with R1_STORE_URL; for one of ours, run: r1 store upgrade",
        )
    return None


def _lock_and_read_revision(connection: Connection) -> str | None:
    """Keep other creators out until the transaction ends (SQLite's transaction does so itself)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_CREATION_LOCK})"))
    return _revision(connection)


@contextmanager
def _disposed_on_error(engine: Engine) -> Iterator[None]:
    """Nobody else can close an engine that was never handed out."""
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(
            f"the store has a schema that no version knows: {error}",
            "Name another database with R1_STORE_URL",
        ) from error


def _engine(url: str, *, read_only: bool) -> Engine:
    """Connections last, but a reader opens a file anew each time: it may have been replaced."""
    in_file = url.startswith("sqlite")
    pool = NullPool if in_file and read_only else None
    try:
        engine = create_engine(make_url(url), poolclass=pool, pool_pre_ping=not in_file)
    except (ArgumentError, ModuleNotFoundError) as error:
        raise StoreError(
            f"R1_STORE_URL is no database that can be reached: {error}",
            "Write it as sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME",
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, read_only=read_only)
    return engine


def _prepare_sqlite(engine: Engine, *, read_only: bool) -> None:
    """One writer beside many readers, and a writer that waits for its turn instead of failing.

    The driver's own transactions begin as readers and cannot always turn into writers, so ours
    begin as what they are.
    """
    settings = [f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON"]
    settings += ["query_only=ON"] if read_only else ["synchronous=NORMAL"]

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: object) -> None:
        connection.isolation_level = None
        for setting in settings:
            connection.execute(f"PRAGMA {setting}")
        if not read_only:
            _use_write_ahead_log(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Let readers read while a writer writes; a property of the file, so it is set but once.

    SQLite's own waiting does not cover this switch: of two who create a store one is told that it
    is locked at once.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
