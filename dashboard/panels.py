"""Parts that every page is made of: a chart with its meaning and its numbers, a line of facts.

Headings and definitions are ours and may hold Markdown; what a model or a problem says goes
through ``dashboard.plain_text``.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow
import streamlit as st

from dashboard.charts import Columns, Drawn

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

STACKED: Final = {"legend": {"layout": {"bottom": {"direction": "vertical", "anchor": "start"}}}}
"""Several legends below each other: beside each other they leave a phone's screen. Vega's own
setting, which Vega-Lite hands on."""
READABLE_GRAPHS: Final = (
    "<style>[data-testid=stGraphVizChart] {overflow-x: auto}"
    "[data-testid=stGraphVizChart] svg {min-width: 50rem}</style>"
)


def draw(
    title: str,
    definition: str,
    drawn: Drawn,
    *,
    name: str,
    picked: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """A chart of ``dashboard.charts`` under its title, with its numbers to download.

    Args:
        title: What it shows.
        definition: How that is measured, in a sentence or two; the title's tooltip.
        drawn: The chart.
        name: Stem of the downloaded file, and unique on the page.
        picked: Is told, before the page is drawn again, what was chosen in a chart with
            selections: by their names what each of them holds.
    """
    heading(title, definition, download=lambda: columns_as_csv(drawn.numbers), name=name)
    datasets = {key: pyarrow.table(columns) for key, columns in drawn.data.items()}
    key = f"chart/{name}"
    st.vega_lite_chart(
        spec={**drawn.spec, "config": STACKED, "datasets": datasets},
        width="stretch",
        alt=f"{title}: {definition}",
        key=key,
        on_select="ignore" if picked is None else lambda: picked(st.session_state[key].selection),
    )


def graph(dot: str, meaning: str) -> None:
    """A graph in Graphviz' language; narrow screens move it sideways instead of shrinking it."""
    st.html(READABLE_GRAPHS)
    st.graphviz_chart(dot, width="stretch", alt=meaning)


def heading(
    title: str, definition: str, *, download: Callable[[], str] | None = None, name: str = ""
) -> None:
    """A title whose tooltip defines it, and a button for the numbers below it."""
    with st.container(horizontal=True, horizontal_alignment="distribute", gap="small"):
        st.markdown(f"**{title}**", help=definition, width="content")
        if download is not None:
            st.download_button(
                "CSV",
                download,
                file_name=f"{name}.csv",
                mime="text/csv",
                key=f"download/{name}",
                icon=":material/download:",
                type="tertiary",
                on_click="ignore",
                help=f"Download the numbers of “{title}”",
            )


def question_language(
    place: "DeltaGenerator | None" = None, *, key: str = "language"
) -> str | None:
    """The filter by the language of the question, in a column or where we are."""
    chosen: str | None = (st if place is None else place).selectbox(
        "Question in",
        ["en", "zh"],
        index=None,
        key=key,
        bind="query-params",
        placeholder="any",
    )
    return chosen


def columns_as_csv(columns: Columns) -> str:
    """A table by its columns as CSV."""
    return rows_as_csv(list(columns), zip(*columns.values(), strict=True))


def rows_as_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Plain rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()
