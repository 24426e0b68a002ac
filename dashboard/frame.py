"""What every page has: a run to look at, or a plain word on why there is none.

A page is a function of an engine and a run. While its run is at work it is drawn again every few
seconds, without the rest of the page; what fails while drawing is said in one line.
"""

from collections.abc import Callable
from datetime import timedelta

import streamlit as st
from sqlalchemy import Engine

from services import views
from services.errors import StoreError
from services.views import MissingStoreError, Run

REFRESH = timedelta(seconds=5)
SILENT_AFTER_SECONDS = 900.0
"""A running run that wrote nothing for so long is not waited for."""
FIRST_COMMAND = "r1 run --recipe tiny"

Page = Callable[[Engine, Run], None]


def show(title: str, page: Page) -> None:
    """Draw a page for the run that the reader chooses."""
    heading, choice = st.columns([2, 1], vertical_alignment="bottom")
    heading.title(title, anchor=False)
    try:
        engine = _engine(views.store_url())
        runs = views.list_runs(engine)
        if not runs:
            raise MissingStoreError("nothing has run yet", "Start a run with: r1 run")
        with choice:
            run = _choose_run(runs)
        live(run, lambda: _say_state(engine, run))
        page(engine, run)
    except StoreError as error:
        _say(error)


def live(run: Run, draw: Callable[[], None]) -> None:
    """Draw now, and again every few seconds while the run is at work."""
    at_work = run.state == "running" and run.silent_seconds < SILENT_AFTER_SECONDS

    @st.fragment(run_every=REFRESH if at_work else None)
    def guarded() -> None:
        try:
            draw()
        except StoreError as error:
            _say(error)

    guarded()


def duration(seconds: float) -> str:
    """A time span as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@st.cache_resource(max_entries=4)
def _engine(url: str) -> Engine:
    return views.open_views(url)


def _choose_run(runs: list[Run]) -> Run:
    """The run of the address, else the newest; the address always names it."""
    by_id = {run.id: run for run in runs}
    asked = st.session_state.get("run") or st.query_params.get("run")
    st.session_state["run"] = asked if asked in by_id else runs[0].id
    chosen: str = st.selectbox("Run", by_id, key="run", persist_state="session")
    st.query_params["run"] = chosen
    return by_id[chosen]


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


def _say(error: StoreError) -> None:
    sentence = f"{error.what[0].upper()}{error.what[1:]}. {error.mend}"
    if isinstance(error, MissingStoreError):
        st.info("There is nothing to show yet. Start a first run, then come back:")
        st.code(FIRST_COMMAND, language="bash")
        st.text(sentence)
    else:
        st.error("The store cannot be read.")
        st.text(sentence)
