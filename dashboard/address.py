"""What the address of a page holds: all that was chosen, so that a link shows the same again.

Filters are widgets with a key and ``bind="query-params"``: Streamlit writes what differs from the
default into the address, and reads it when the page is opened or the browser goes back. Here is
what it leaves to us: a choice that is always named, rows of a table, and values that no longer mean
anything because what they were chosen from has changed.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Literal

import streamlit as st

from dashboard.plain_text import visible

NOBODY_CHOSE: Final = object()


def named(
    label: str,
    options: Sequence[str],
    *,
    key: str,
    format_func: Callable[[str], str] = str,
    on_all_pages: bool = False,
) -> str:
    """A choice that is in the address even where it is the default, which changes with time.

    What is in the address counts where it came there by a link or by going back, else what was
    chosen here.
    """
    there, written = st.query_params.get(key), st.session_state.get(f"named/{key}")
    came = there if there and there != written else None
    asked = came or st.session_state.get(key) or there
    st.session_state[key] = asked if asked in options else options[0]
    kept: Literal["session"] | None = "session" if on_all_pages else None
    chosen: str = st.selectbox(label, options, key=key, format_func=format_func, persist_state=kept)
    if came is not None and came not in options:
        st.text(visible(f"There is no {label.lower()} {came}; this is another."))
    if there != chosen:
        st.query_params[key] = chosen
    st.session_state[f"named/{key}"] = chosen
    return chosen


def pager(pages: int, *, key: str, asked: object) -> int:
    """The number of the page, from 1; another question than before begins at its first page.

    Args:
        pages: How many there are by now.
        key: Its name in the address.
        asked: The question whose answers are paged through.
    """
    before = st.session_state.get(f"asked/{key}")
    if before is not None and before != asked:
        st.session_state[key] = 1
    st.session_state[f"asked/{key}"] = asked
    keep_within(key, pages)
    return st.pagination(pages, key=key, bind="query-params")


def keep_within(key: str, most: int, otherwise: int | None = 1) -> None:
    """Before its widget is drawn: a number beyond what there is by now is put back."""
    value = st.session_state.get(key)
    if value is not None and value > most:
        st.session_state[key] = otherwise


def keep_among(key: str, options: Collection[Any], otherwise: Any = None) -> None:
    """Before its widget is drawn: what can no longer be chosen is let go.

    Streamlit would do the same, but leave it in the address. Of several, those stay that there are;
    ``otherwise`` is what is chosen where none is left.
    """
    value = st.session_state.get(key)
    if not isinstance(value, list):
        if value is not None and value not in options:
            st.session_state[key] = otherwise
    elif there := [one for one in value if one in options]:
        st.session_state[key] = there
    elif value:
        st.session_state[key] = otherwise or []


def follow(key: str, default: Any) -> None:
    """Before its widget is drawn: a value that nobody chose goes along with its default."""
    before = st.session_state.get(f"default/{key}", NOBODY_CHOSE)
    if default != before == st.session_state.get(key):
        st.session_state[key] = default
    st.session_state[f"default/{key}"] = default


def row_chosen(table: str, names: Sequence[str], *, key: str) -> None:
    """When a row of a table is chosen: the address names it, as one of ``names`` by its place."""
    for row in st.session_state[table].selection.rows:
        st.query_params[key] = names[row]
