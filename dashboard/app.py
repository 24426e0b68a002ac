"""Entry of the dashboard: ``streamlit run dashboard/app.py``.

It shows the store of ``R1_STORE_URL``, else the one in ``R1_HOME``.
"""

from pathlib import Path

import streamlit as st

from dashboard import people
from dashboard.contents import PAGES

ICON = Path(__file__).parent / "icon.svg"
# A file of ours: named icons are fetched from the internet.

st.set_page_config(page_title="R1flow", page_icon=str(ICON), layout="wide")
chosen = st.navigation(
    [
        st.Page(entry.file, title=entry.title, icon=entry.icon, default=entry is PAGES[0])
        for entry in PAGES
    ],
    position="top",
)
people.door()
chosen.run()
