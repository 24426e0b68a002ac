"""How long pages take, what they hold and what they read; for ``r1 bench dashboard``.

Each page is drawn in a process of its own, as a server draws it, without a browser:

- *cold*: the first drawing after Streamlit is up. It imports what the page needs, opens the store
  and asks everything; a SQLite file is dropped from the memory of the operating system before.
- *warm*: the median of further visits by new sessions in the same process.
- *rows loaded*: every row that came out of the database while it was drawn cold, counted in the
  driver; *rows shown*: rows of its charts and tables, options, and texts.
- *memory*: the most that the process ever held.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from sqlalchemy import Engine, event
from streamlit.testing.v1 import AppTest

from dashboard.contents import PAGES
from services.store.opening import store_url

FOLDER: Final = Path(__file__).parent
WARM_VISITS: Final = 5
LONGEST: Final = 120.0
"""Seconds after which a drawing is given up."""
QUESTIONS: Final = (
    "training?figures=Policy",
    "emergence?asked=in training, by step",
    "samples?order=longest",
    "samples?order=worst&verdict=wrong&level=6",
    "samples?contains=nobody ever wrote this",
    "samples?part=language&part_from=0.5&part_below=0.6",
    "samples?step=1&group=0",
)
"""Addresses that ask more of a page than its first look does."""


class Measured(NamedTuple):
    """What one address cost."""

    page: str
    cold_seconds: float
    cold_processor_seconds: float
    """The same without waiting for other programs of the machine, or for the disk."""
    warm_seconds: float
    warm_processor_seconds: float
    rows_loaded: int
    rows_shown: int
    memory_mib: float
    errors: list[str]
    """What the page could not draw."""


class Rows:
    """Counts rows in the database's driver."""

    def __init__(self) -> None:
        """Count on every connection that is opened from here on."""
        self.count = 0
        event.listen(Engine, "connect", self._watch)

    def _watch(self, connection: Any, _: object) -> None:
        if type(connection).__module__.startswith("sqlite3"):
            connection.row_factory = self._sqlite_row
        else:
            connection.row_factory = self._psycopg_rows

    def _sqlite_row(self, _: object, row: tuple[Any, ...]) -> tuple[Any, ...]:
        self.count += 1
        return row

    def _psycopg_rows(self, cursor: Any) -> Any:
        from psycopg.rows import tuple_row

        make = tuple_row(cursor)

        def counted(values: Any) -> Any:
            self.count += 1
            return make(values)

        return counted


def measure(address: str) -> Measured:
    """Draw one address cold, then warm, in this process."""
    rows = Rows()
    _forget_file()
    cold, page = _visit(address)
    loaded = rows.count
    warm = [_visit(address)[0] for _ in range(WARM_VISITS)]
    errors = [error.message for error in page.exception] + [error.value for error in page.error]
    return Measured(
        page=address,
        cold_seconds=cold[0],
        cold_processor_seconds=cold[1],
        warm_seconds=statistics.median(seconds for seconds, _ in warm),
        warm_processor_seconds=statistics.median(seconds for _, seconds in warm),
        rows_loaded=loaded,
        rows_shown=rows_shown(page),
        memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        errors=errors,
    )


def rows_shown(page: AppTest) -> int:
    """Rows of charts and tables, options of choices, and texts."""
    import pyarrow

    def length(data: bytes, numbers: int = 1) -> int:
        return numbers * int(pyarrow.ipc.open_stream(data).read_all().num_rows) if data else 0

    shown = 0
    for element in page.get("vega_lite_chart"):
        chart = element.proto
        shown += length(chart.data.data)
        for each in chart.datasets:  # both ends of a band are numbers of their own in the store
            shown += length(each.data.data, 2 if each.name == "bands" else 1)
    shown += sum(len(table.value) for table in page.dataframe)
    for choices in (page.selectbox, page.multiselect, page.button_group):
        shown += sum(len(choice.options) for choice in choices)
    shown += sum(len(page.get(kind)) for kind in ("text", "code", "markdown", "html", "metric"))
    return shown


def _visit(address: str) -> tuple[tuple[float, float], AppTest]:
    """A new session: seconds by the clock and of the processor."""
    name, _, query = address.partition("?")
    page = AppTest.from_file(str(FOLDER / "screens" / f"{name}.py"), default_timeout=LONGEST)
    for key, value in parse_qsl(query):
        page.query_params[key] = value
    began, used = time.perf_counter(), time.process_time()
    page.run()
    return (time.perf_counter() - began, time.process_time() - used), page


def _forget_file() -> None:
    """Drop the store from the memory of the operating system, where it is a file."""
    file = Path(store_url().removeprefix("sqlite:///"))
    if file.is_file() and hasattr(os, "posix_fadvise"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    """Measure the addresses that are given, else all; one JSON object each, a line each."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(sys.argv[2])._asdict()))  # noqa: T201 - it is the answer
        return
    for address in sys.argv[1:] or [*(entry.name for entry in PAGES), *QUESTIONS]:
        command = [sys.executable, "-m", "dashboard.measure", "--one", address]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        print(done.stdout.strip().splitlines()[-1], flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
