"""Parts that every page is made of: a chart with its meaning and its numbers, a line of facts.

Headings and definitions are ours and may hold Markdown; what a model or a problem says goes
through ``dashboard.plain_text``.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st


def chart(
    title: str,
    definition: str,
    drawn: alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart,
    numbers: pd.DataFrame,
    *,
    name: str,
) -> None:
    """A chart under its title, which says what is drawn, with its numbers to download.

    Args:
        title: What it shows.
        definition: How that is measured, in a sentence or two; the title's tooltip.
        drawn: The chart.
        numbers: What it draws, as people want it in a spreadsheet.
        name: Stem of the downloaded file, and unique on the page.
    """
    heading(title, definition, download=lambda: as_csv(numbers), name=name)
    st.altair_chart(drawn, width="stretch", alt=f"{title}: {definition}")


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


def as_csv(numbers: pd.DataFrame) -> str:
    """A table as CSV."""
    return str(numbers.to_csv(index=False))


def rows_as_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Plain rows as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()
