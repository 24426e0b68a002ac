"""How long the registry takes to list many versions, beside a plain search of MLflow's.

The versions are made for the measurement, in a folder that is gone afterwards. What is listed is
what ``r1 models`` and the dashboard's Models page show.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.bench.filled_registry import MODEL, fill, registry_of_its_own
from services.catalog import open_catalog
from services.mlflow_store import open_client
from services.store import store_url
from services.store.opening import open_engine_to_read

if TYPE_CHECKING:
    from mlflow import MlflowClient

PAGE: Final = 20
"""Versions of a page of the dashboard."""
MOST_OF_A_SEARCH: Final = 1_000
ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class RegistryBench:
    """Seconds, each the best of some rounds."""

    versions: int
    load: float
    """Load average of the machine before the measurement."""
    all_seconds: float
    """All versions with tags and aliases: ``r1 models --limit 0``."""
    page_seconds: float
    """The newest of them: a page of the dashboard, ``r1 models``."""
    plain_seconds: float
    """All versions by ``search_model_versions``, page by page, as a script of one's own would."""
    ratio: float
    """``plain_seconds`` over ``all_seconds``."""


@registry_of_its_own()
def bench(versions: int = 2_000, report: Callable[[int], None] = lambda _: None) -> RegistryBench:
    """Register ``versions`` versions and list them.

    Args:
        versions: How many.
        report: Told how many there are, now and then.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder), versions, load, report)


def _measure(
    home: Path, versions: int, load: float, report: Callable[[int], None]
) -> RegistryBench:
    url = store_url({"R1_HOME": str(home)})
    line = fill(home, url, versions, report)
    engine = open_engine_to_read(url)
    try:
        catalog, client = open_catalog(home, engine), open_client(home)
        seconds = {
            "all": _best(lambda: len(line.versions(MODEL)), versions),
            "page": _best(lambda: len(catalog.versions(MODEL, limit=PAGE)), min(PAGE, versions)),
            "plain": _best(lambda: _plain(client), versions),
        }
    finally:
        engine.dispose()
    return RegistryBench(
        versions=versions,
        load=load,
        all_seconds=seconds["all"],
        page_seconds=seconds["page"],
        plain_seconds=seconds["plain"],
        ratio=seconds["plain"] / seconds["all"],
    )


def _plain(client: "MlflowClient") -> int:
    found, token = 0, None
    while True:
        page = client.search_model_versions(
            f"name = '{MODEL}'", max_results=MOST_OF_A_SEARCH, page_token=token
        )
        found, token = found + len(page), page.token
        if not token:
            return found


def _best(listing: Callable[[], int], expected: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        found = listing()
        best = min(best, time.perf_counter() - started)
        assert found == expected, f"{found} of {expected} versions were listed"
    return best
