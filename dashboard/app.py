"""Entry of the dashboard: ``streamlit run dashboard/app.py``.

It shows the store of ``R1_STORE_URL``, else the one in ``R1_HOME``.
"""

from pathlib import Path

import streamlit as st

ICON = Path(__file__).parent / "icon.svg"
# A file of ours: named icons are fetched from the internet.

st.set_page_config(page_title="R1flow", page_icon=str(ICON), layout="wide")
st.navigation(
    [
        st.Page(
            "pages/overview.py", title="Overview", icon=":material/account_tree:", default=True
        ),
        st.Page("pages/training.py", title="Training", icon=":material/show_chart:"),
        st.Page("pages/samples.py", title="Samples", icon=":material/notes:"),
    ],
    position="top",
).run()
