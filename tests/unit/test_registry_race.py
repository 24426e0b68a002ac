"""Many who promote and roll back at once: one line of history, one champion at every moment."""

import itertools
import multiprocessing
import random
import time

import pytest
from mlflow import MlflowClient

from services.errors import RegistryError
from services.mlflow_store import open_client, tracking_uri
from services.registry import open_registry
from services.store.ledger import Promotion, SqlLedger, champions, open_ledger
from services.store.opening import open_engine_to_read
from services.types import CheckpointRef

# MLflow's tables still use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

PROCESSES = 8
VERSIONS = 12
MODEL = "r1"


def call_many(home, url, name, calls, start, results):
    """What one process does: promote some version or roll back, as fast as it can."""
    registry = open_registry(home, open_ledger(url))
    rng = random.Random(name)
    start.wait()
    won = told = 0
    for _ in range(calls):
        try:
            if rng.random() < 0.3:
                registry.rollback(MODEL, who=name, why="race")
            else:
                registry.promote(MODEL, rng.randint(1, VERSIONS), who=name, why="race")
            won += 1
        except RegistryError:
            told += 1
    results.put((name, won, told))


def checkpoints(folder):
    for number in range(VERSIONS):
        path = folder / f"zero-{number}"
        path.mkdir()
        (path / "config.json").write_text("{}")
        (path / "model.safetensors").write_bytes(b"%d" % number)
        yield CheckpointRef("zero", str(path), digest=f"{number:064d}")


def registered(home, url, folder):
    registry = open_registry(home, open_ledger(url))
    for ref in checkpoints(folder):
        registry.register(
            ref, model=MODEL, pipeline="p", recipe_digest="f" * 64, mlflow_run_id="0" * 32
        )
    registry.promote(MODEL, 1, who="first", why="there is a champion from here on")
    return registry


def race(home, url, calls):
    """All processes at once, and a look at the champion all the while; what they won and saw."""
    spawn = multiprocessing.get_context("spawn")
    start, results = spawn.Barrier(PROCESSES + 1), spawn.Queue()
    processes = [
        spawn.Process(target=call_many, args=(home, url, f"p{n}", calls, start, results))
        for n in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    client, ledger = (
        MlflowClient(tracking_uri=tracking_uri(home)),
        SqlLedger(open_engine_to_read(url)),
    )
    start.wait()
    began, looks = time.perf_counter(), 0
    while any(process.is_alive() for process in processes) and results.qsize() < PROCESSES:
        head = ledger.head(MODEL)
        assert head is not None
        assert 1 <= head.champion <= VERSIONS
        alias = client.get_model_version_by_alias(MODEL, "champion")
        assert 1 <= int(alias.version) <= VERSIONS
        looks += 1
    seconds = time.perf_counter() - began
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    print(f"{PROCESSES * calls} calls in {seconds:.1f} s, {looks} looks, {outcomes}")
    return outcomes


def require_one_line(history):
    """Entries without gaps, each of which follows from the ones before."""
    assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
    for place, entry in enumerate(history, start=1):
        line = champions(history[:place]) if place % 50 == 0 or place == len(history) else None
        if line is not None:
            assert entry.champion == line[-1]
            assert entry.previous == (line[-2] if len(line) > 1 else None)
    for before, after in itertools.pairwise(history):
        if after.action == "promote":
            assert (after.previous, after.champion != before.champion) == (before.champion, True)
        else:
            assert after.champion == before.previous


def aliases(home):
    found = MlflowClient(tracking_uri=tracking_uri(home)).get_registered_model(MODEL).aliases
    return {alias: int(version) for alias, version in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_thousand_calls_from_eight_processes(backend, tmp_path, monkeypatch, request):
    home = tmp_path / "home"
    url = f"sqlite:///{home / 'store.db'}"
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if backend == "postgresql":
        cluster = request.getfixturevalue("postgres_cluster")
        url = cluster.url(cluster.new_database())
        monkeypatch.setenv("MLFLOW_TRACKING_URI", cluster.url(cluster.new_database()))
    open_client(home)
    registry = registered(home, url, tmp_path)
    outcomes = race(home, url, 1000 // PROCESSES)
    assert sum(won + told for _, won, told in outcomes) == 1000
    history = registry.history(MODEL)
    require_one_line(history)
    head = history[-1]
    wanted = {"champion": head.champion, "previous": head.previous}
    assert aliases(home) == {name: number for name, number in wanted.items() if number}


def append_many(url, name, count, start, results):
    """Write the next entry again and again; how often that was won."""
    ledger = open_ledger(url)
    start.wait()
    won = 0
    for turn in range(count):
        head = ledger.head(MODEL)
        sequence = head.sequence + 1 if head else 1
        entry = Promotion(
            MODEL, sequence, "promote", turn, head.champion if head else None, name, "race", _now()
        )
        won += ledger.append(entry)
    results.put(won)


def _now():
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_the_ledger_on_postgresql_gives_each_number_once(postgres_url):
    spawn = multiprocessing.get_context("spawn")
    open_ledger(postgres_url)
    start, results = spawn.Barrier(3), spawn.Queue()
    processes = [
        spawn.Process(target=append_many, args=(postgres_url, f"p{n}", 30, start, results))
        for n in range(3)
    ]
    for process in processes:
        process.start()
    won = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    history = open_ledger(postgres_url).history(MODEL)
    assert len(history) == sum(won)
    assert all(won)
    assert [entry.sequence for entry in history] == list(range(1, len(history) + 1))
    for before, after in itertools.pairwise(history):
        assert after.previous == before.champion
