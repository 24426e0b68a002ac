"""Links from page to page that carry what to show there."""

from urllib.parse import urlencode

import streamlit as st

from dashboard.contents import PAGES


def address(page: str, **wanted: str | int) -> str:
    """The address of a page below the dashboard's own, with filters."""
    entry = next(entry for entry in PAGES if entry.name == page)
    path = entry.path.lstrip("/") or "."
    return f"{path}?{urlencode(wanted)}" if wanted else path


def to_page(page: str, label: str, **wanted: str | int) -> None:
    """A link to a page with filters; it opens beside this one."""
    st.link_button(label, address(page, **wanted), type="tertiary", icon=":material/open_in_new:")
