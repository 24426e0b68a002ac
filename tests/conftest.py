"""Shared by all tests: one thread for small matrices, no state outside temporary folders."""

import os

from tests.postgres import postgres_cluster, postgres_url  # noqa: F401 - fixtures of all tests

os.environ.setdefault("OMP_NUM_THREADS", "1")  # waiting for each other costs more than it saves
for _name in ("R1_HOME", "R1_STORE_URL", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
    os.environ.pop(_name, None)
# Prefect reads these when it is imported; its servers talk at exit, when the capture is closed.
os.environ["PREFECT_LOGGING_LEVEL"] = os.environ["PREFECT_SERVER_LOGGING_LEVEL"] = "ERROR"
