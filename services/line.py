"""The line of a state folder: its registry, the ledger that decides, and who is told of changes."""

from pathlib import Path

from services.registry import Registry, open_registry
from services.store.ledger import open_ledger
from services.webhooks import open_announcer


def open_line(home: Path, url: str) -> Registry:
    """The registry of ``home`` that goes by the ledger of the store ``url``.

    Raises:
        StoreError: MLflow's store or the one at ``url`` cannot be used.
    """
    return open_registry(home, open_ledger(url), open_announcer(url).promotion)
