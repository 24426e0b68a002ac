import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.bench import pages
from services.bench.filled_store import Size, fill
from services.views import list_runs, open_views, run_overview


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('bench') / 'store.db'}"
    fill(url, Size(800, 40, 2))
    return url


def test_the_store_is_as_large_as_asked_and_filled_once(url: str) -> None:
    engine = open_views(url)
    runs = list_runs(engine)
    assert [run.id for run in runs] == ["bench-800-40-00", "bench-800-40-01"]
    steps = [
        sum(stage.last_step for stage in run_overview(engine, run.id).stages if stage.kind == "rl")
        for run in runs
    ]
    assert steps == [20, 20]
    said: list[str] = []
    fill(url, Size(800, 40, 2), said.append)
    assert said == []


def test_a_page_is_measured_in_a_process_of_its_own(url: str) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "R1_STORE_URL": url, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "dashboard.measure", "samples?order=longest"]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    (page,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert page["page"] == "samples?order=longest"
    assert page["errors"] == []
    assert 10 <= page["rows_loaded"] <= page["rows_shown"] + pages.BOOKKEEPING_ROWS
    assert page["memory_mib"] > 50


def test_missed_bars_are_said_in_words() -> None:
    page = {
        "page": "training", "cold_seconds": 1.6, "warm_seconds": 0.5, "rows_loaded": 400,
        "rows_shown": 100, "memory_mib": 300.0, "errors": ["broken"],
    }  # fmt: skip
    assert pages.missed(page) == [
        "training: 1.60 s cold, more than 1.5",
        "training: 400.00 rows loaded, more than 220",
        "training: broken",
    ]
