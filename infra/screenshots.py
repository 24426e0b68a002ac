"""Pictures of every page of the dashboard, light, dark and narrow, taken by a real browser.

``python -m infra.screenshots`` shows the store of ``R1_STORE_URL`` or ``R1_HOME`` and writes PNG
files; it fails if a page logs an error to the console or shows an exception.
"""

import argparse
from pathlib import Path

from dashboard.contents import PAGES
from infra.browser import EXCEPTIONS, ROOT, Look, running_browser, running_dashboard

QUERIES = {"emergence": "asked=in+training%2C+by+step"}
"""What is shown of a page where nothing else is asked for."""
LOOKS = (Look("light", 1280, "light"), Look("dark", 1280, "dark"), Look("phone", 390, "light"))


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "infra" / "screenshots")
    parser.add_argument("--only", nargs="*", default=[page.name for page in PAGES])
    parser.add_argument("--query", default="", help="filters of the address, such as set=dev1")
    options = parser.parse_args()
    output: Path = options.output
    pages = [page for page in PAGES if page.name in options.only]
    output.mkdir(parents=True, exist_ok=True)
    complaints = []
    with running_dashboard() as dashboard, running_browser() as browser:
        browser.open(dashboard)  # the first page that a server shows teaches it the menu
        for look in LOOKS:
            for page in pages:
                query = options.query or QUERIES.get(page.name, "")
                browser.open(f"{dashboard}{page.path}?{query}", look)
                picture = browser.whole_page(look)
                (output / f"{page.name}-{look.name}.png").write_bytes(picture)
                complaints += [f"{page.name}, {look.name}: {error}" for error in browser.errors()]
                if browser.run(EXCEPTIONS):
                    complaints.append(f"{page.name}, {look.name}: the page shows an exception")
    if complaints:
        raise SystemExit("\n".join(complaints))


if __name__ == "__main__":
    main()
