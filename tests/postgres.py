"""A PostgreSQL of the tests' own: a private cluster on loopback, and a new database for each test.

PostgreSQL refuses to run as root, so root's tests start it as another account. Nothing is synced to
disk: the folder goes when the tests end. Where the server's programs are missing, tests that ask
for it are skipped.
"""

import itertools
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_UNPRIVILEGED = ("postgres", "nobody")
_FAST = ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200"]


def server_programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``; Debian keeps them out of the path."""
    found = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(found).parent if found else debian[-1].parent if debian else None


class Cluster:
    """A running server that one user with one password can reach."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._programs = programs
        self._account = _account()
        self._password = secrets.token_urlsafe(16)
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Make the cluster and start it on a free port."""
        word = self.folder / "password"
        word.write_text(self._password)
        if self._account:
            for path in (self.folder, word):
                shutil.chown(path, self._account)
        login = ["--username=tests", f"--pwfile={word}", "--auth=scram-sha-256"]
        self._run("initdb", *login, "--no-sync", "--encoding=UTF8", "--locale=C")
        for patience in reversed(range(3)):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            settings = [*_FAST, f"port={self.port}", "listen_addresses=127.0.0.1"]
            settings.append(f"unix_socket_directories={self.folder}")
            options = " ".join(f"-c {setting}" for setting in settings)
            try:
                self._run("pg_ctl", "start", "-w", "-l", f"{self.folder}/log", "-o", options)
            except subprocess.CalledProcessError:  # the port may have been taken meanwhile
                if not patience:
                    raise
            else:
                return

    def stop(self) -> None:
        """Stop it without a clean end; nobody needs its data."""
        self._run("pg_ctl", "stop", "-m", "immediate")

    def url(self, database: str, driver: str = "postgresql") -> str:
        """The address of a database; ``postgresql+asyncpg`` for Prefect's server."""
        return f"{driver}://tests:{self._password}@127.0.0.1:{self.port}/{database}"

    def new_database(self, name: str = "") -> str:
        """Create an empty database; its name."""
        import psycopg

        name = name or f"test_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
        return name

    def _run(self, program: str, *options: str) -> None:
        command = [str(self._programs / program), "-D", str(self.folder / "data"), *options]
        subprocess.run(
            command,
            check=True,
            cwd=self.folder,
            user=self._account,
            group=self._account and pwd.getpwnam(self._account).pw_gid,
            extra_groups=[] if self._account else None,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _account() -> str | None:
    """Whom to run the server as; None where we are nobody special ourselves."""
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _UNPRIVILEGED if name in accounts)


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """One server for all tests of the session."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'r1flow[postgres]'")
    programs = server_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="r1-pg-"))  # not below a folder that others cannot enter
    cluster = Cluster(programs, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> str:
    """The address of a new, empty database."""
    return postgres_cluster.url(postgres_cluster.new_database())
