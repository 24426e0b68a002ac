"""Every page of the dashboard on a store as large as years of use make it.

The bars: a page answers within 1.5 s cold and 0.5 s warm, its process stays within 1 GiB, and it
loads no more rows than it shows but for a few of bookkeeping. How each figure is taken says
``dashboard.measure``, which runs in processes of its own: services do not know the dashboard.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from services.bench import filled_registry
from services.bench.filled_store import Size, fill
from services.errors import StoreError
from services.store.opening import open_engine_to_read, reading
from services.store.schema import Rollouts, Runs

COLD_SECONDS: Final = 1.5
WARM_SECONDS: Final = 0.5
MEMORY_MIB: Final = 1024
VERSIONS: Final = 200
"""In the registry."""
BOOKKEEPING_ROWS: Final = 120
"""The schema's tables, the stages of the run, the names of its metrics."""


class PagesBench(NamedTuple):
    """Figures of one machine."""

    store: str
    """Kind of database."""
    cores: int
    load: float
    """Load average before the measurement; above 0, others took their share."""
    completions: int
    """In the store, counted."""
    largest_run: str
    pages: list[Mapping[str, Any]]
    """Fields of ``dashboard.measure.Measured``."""
    missed: list[str]
    """Which bars which pages missed, in words; empty if none did."""


@filled_registry.registry_of_its_own()
def bench(url: str, size: Size, home: Path, say: Callable[[str], None]) -> PagesBench:
    """Fill the store if it is not filled yet, and draw every page of it.

    Args:
        url: Of the store.
        size: How much is in it.
        home: State folder for the registry, and whatever else pages look for beside the store.
        say: Is told how far it is.

    Raises:
        StoreError: The store cannot be written, or a page cannot be drawn.
    """
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    fill(url, size, say)
    filled_registry.fill(home, url, VERSIONS)
    engine = open_engine_to_read(url)
    with reading(engine) as connection:
        completions = connection.execute(select(func.count()).select_from(Rollouts)).scalar_one()
        newest = select(Runs.id).order_by(Runs.started_at.desc()).limit(1)
        largest = connection.execute(newest).scalar_one()
    engine.dispose()
    load = os.getloadavg()[0]
    pages: list[Mapping[str, Any]] = []
    command = [sys.executable, "-m", "dashboard.measure"]
    search = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]),
                                           os.environ.get("PYTHONPATH"))))  # fmt: skip
    environment = {**os.environ, "R1_STORE_URL": url, "R1_HOME": str(home), "PYTHONPATH": search}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stdout or ():
            pages.append(json.loads(line))
            say(f"{pages[-1]['page']}: {pages[-1]['cold_seconds']:.2f} s cold")
    if process.returncode:
        raise StoreError(
            "a page could not be measured", "See it with: python -m dashboard.measure PAGE"
        )
    return PagesBench(
        store=make_url(url).get_backend_name(),
        cores=os.cpu_count() or 1,
        load=load,
        completions=completions,
        largest_run=largest,
        pages=pages,
        missed=[words for page in pages for words in missed(page)],
    )


def missed(page: Mapping[str, Any]) -> list[str]:
    """The bars that a page misses, in words."""
    bars = (
        ("cold_seconds", COLD_SECONDS, "s cold"),
        ("warm_seconds", WARM_SECONDS, "s warm"),
        ("memory_mib", MEMORY_MIB, "MiB"),
        ("rows_loaded", page["rows_shown"] + BOOKKEEPING_ROWS, "rows loaded"),
    )
    words = [
        f"{page['page']}: {page[name]:,.2f} {unit}, more than {bar:,}"
        for name, bar, unit in bars
        if page[name] > bar
    ]
    return words + [f"{page['page']}: {error}" for error in page["errors"]]
