"""What every page has: a store, mostly a run to look at, or a plain word on why there is none.

``show`` draws a page about one run, ``show_store`` one about all of them. Either is a function that
gets the engine and draws; what fails in it is said in one line. ``live`` draws a part of a page
again every few seconds while its run is at work, without the rest of the page. ``ask`` puts a
question to ``services.views`` and remembers the answer for as long as it may be old.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import streamlit as st
from sqlalchemy import Engine

from dashboard import address
from services import views
from services.errors import R1Error, StoreError
from services.views import MissingStoreError, Run

REFRESH = timedelta(seconds=5)
FRESH = timedelta(seconds=4)
"""How old an answer about a run at work may be: less than from one drawing to the next."""
SETTLED = timedelta(minutes=2)
"""How old an answer may be about what no longer changes but by hand."""
REMEMBERED = 128
"""Answers kept at most; each is at most what one page shows."""
SILENT_AFTER_SECONDS = 900.0
"""A running run that wrote nothing for so long is not waited for."""
FIRST_COMMAND = "r1 run --recipe tiny"

Page = Callable[[Engine, Run], None]
StorePage = Callable[[Engine], None]
T = TypeVar("T")


def show(title: str, page: Page) -> None:
    """Draw a page for the run that the reader chooses."""
    heading, choice = st.columns([2, 1], vertical_alignment="bottom")
    heading.title(title, anchor=False)
    with failures_in_words():
        engine = open_store()
        with choice:
            run = _choose_run(engine)
        live(run, lambda: _say_state(engine, run))
        page(engine, run)


def show_store(title: str, page: StorePage) -> None:
    """Draw a page about the store as a whole; it is drawn where nothing has run yet, too."""
    st.title(title, anchor=False)
    with failures_in_words():
        page(open_store())


def open_store() -> Engine:
    """The store to read.

    Raises:
        StoreError: There is none, or it cannot be read.
    """
    return _engine(views.store_url())


def live(run: Run, draw: Callable[[], None]) -> None:
    """Draw now, and again every few seconds while the run is at work."""

    @st.fragment(run_every=REFRESH if at_work(run) else None)
    def guarded() -> None:
        with failures_in_words():
            draw()

    guarded()


def at_work(run: Run) -> bool:
    """Whether more can be expected of a run."""
    return run.state == "running" and run.silent_seconds < SILENT_AFTER_SECONDS


def ask(run: Run | None, query: Callable[..., T], engine: Engine, *args: Any, **kwargs: Any) -> T:
    """The answer of a view, remembered for a few seconds, or minutes where little changes.

    Args:
        run: The run that it is about; None for the store as a whole.
        query: A function of ``services.views``.
        engine: Its first argument.
        args: The others; records, numbers and words.
        kwargs: The same by name.
    """
    remember = _fresh if run is None or at_work(run) else _settled
    name = f"{query.__module__}.{query.__qualname__}"
    store = engine.url.render_as_string(hide_password=True)
    return cast(T, remember(lambda: query(engine, *args, **kwargs), name, store, args, kwargs))


def forget() -> None:
    """Ask anew from here on: something was written."""
    _fresh.clear()
    _settled.clear()


def duration(seconds: float) -> str:
    """A time span as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@contextmanager
def failures_in_words() -> Iterator[None]:
    """What the store or another service refuses is said in one line instead of the rest."""
    try:
        yield
    except R1Error as error:
        _say(error)


@st.cache_resource(max_entries=4, show_spinner=False)
def _engine(url: str) -> Engine:
    return views.open_views(url)


# Two functions, because Streamlit keeps one memory for each: wrapped twice, one function would
# forget everything whenever the other way of remembering it is used.
@st.cache_data(ttl=FRESH, max_entries=REMEMBERED, show_spinner=False)
def _fresh(_query: Callable[[], Any], *question: Any) -> Any:
    return _query()


@st.cache_data(ttl=SETTLED, max_entries=REMEMBERED, show_spinner=False)
def _settled(_query: Callable[[], Any], *question: Any) -> Any:
    return _query()


def _choose_run(engine: Engine) -> Run:
    """The run of the address, else the newest; the address always names it."""
    wanted = (st.session_state.get("run"), st.query_params.get("run"))
    runs = views.list_runs(engine, also=[run for run in wanted if run])
    if not runs:
        raise MissingStoreError("nothing has run yet", "Start a run with: r1 run")
    by_id = {run.id: run for run in runs}
    return by_id[address.named("Run", list(by_id), key="run", on_all_pages=True)]


def _say_state(engine: Engine, shown: Run) -> None:
    """Where the run is; when it ends the whole page is drawn once more, and then rests."""
    run = views.run_overview(engine, shown.id).run
    if run.state != shown.state:
        st.rerun()
    parts = [run.state, f"recipe {run.recipe_name}", f"seed {run.seed}"]
    if run.state == "running":
        parts.append(f"last wrote {duration(run.silent_seconds)} ago")
    elif run.ended_at is not None:
        parts.append(f"ended {run.ended_at:%Y-%m-%d %H:%M} UTC")
    st.text(" · ".join([*parts, run.summary] if run.summary else parts))


def _say(error: R1Error) -> None:
    sentence = f"{error.what[0].upper()}{error.what[1:]}. {error.mend}"
    if isinstance(error, MissingStoreError):
        st.info("There is nothing to show yet. Start a first run, then come back:")
        st.code(FIRST_COMMAND, language="bash")
        st.text(sentence)
    else:
        st.error("The store cannot be read." if isinstance(error, StoreError) else "That failed.")
        st.text(sentence)
