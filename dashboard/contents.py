"""The pages there are, in the order of the menu.

A page is a file in ``screens/`` and a line here; its name is the file's and that of its address.
The menu, the screenshots, the tests of all pages and ``r1 bench dashboard`` go by this list. The
folder must not be called ``pages``: Streamlit would serve its files past the menu and the sign-in
of ``app.py`` to whoever is first to ask a fresh server for one of them by its address.
"""

from typing import Final, NamedTuple


class Entry(NamedTuple):
    """One page."""

    name: str
    title: str
    icon: str
    """Of the font that comes with Streamlit; a picture would be fetched from the internet."""
    of_run: bool = True
    """Whether it shows one run; else it is about all of them."""

    @property
    def file(self) -> str:
        """Its script, below the folder of the dashboard."""
        return f"screens/{self.name}.py"

    @property
    def path(self) -> str:
        """Its address; that of the first page is the root."""
        return "/" if self is PAGES[0] else f"/{self.name}"


PAGES: Final = (
    Entry("overview", "Overview", ":material/account_tree:"),
    Entry("training", "Training", ":material/show_chart:"),
    Entry("emergence", "Emergence", ":material/psychology:"),
    Entry("samples", "Samples", ":material/notes:"),
    Entry("data", "Data", ":material/filter_alt:"),
    Entry("evaluations", "Evaluations", ":material/compare_arrows:"),
    Entry("models", "Models", ":material/trophy:", of_run=False),
    Entry("operations", "Operations", ":material/schedule:", of_run=False),
    Entry("playground", "Playground", ":material/forum:", of_run=False),
)
