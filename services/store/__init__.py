"""The store, write side: every rollout, data set, evaluation and decision of every run in SQL.

SQLite by default, PostgreSQL by address. ``open_store`` creates or opens, ``Store`` writes,
``upgrade_store`` migrates; reading is in ``services.views``.
"""

from services.store.opening import MissingStoreError, store_url, upgrade_store
from services.store.writing import RunState, StageKind, StageRef, Store, open_store

__all__ = [
    "MissingStoreError",
    "RunState",
    "StageKind",
    "StageRef",
    "Store",
    "open_store",
    "store_url",
    "upgrade_store",
]
