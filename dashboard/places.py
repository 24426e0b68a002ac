"""Where pages read from beside the store, and the one door they write through."""

import os
from pathlib import Path

import streamlit as st

from services import views
from services.catalog import Catalog, has_registry, open_catalog
from services.control import Control
from services.orchestrator import Orchestrator, api_url
from services.views import MissingStoreError


def home() -> Path:
    """The state folder."""
    return Path(os.environ.get("R1_HOME") or ".r1")


def catalog() -> Catalog:
    """What the registry holds.

    Raises:
        MissingStoreError: Nothing was registered yet.
        StoreError: MLflow or the store cannot be read.
    """
    if not has_registry(home()):
        raise MissingStoreError("nothing was registered yet", "The gate of a run does that: r1 run")
    return _catalog(str(home()), views.store_url(), os.environ.get("MLFLOW_TRACKING_URI", ""))


def orchestrator() -> Orchestrator | None:
    """The Prefect server, if there is one."""
    url = api_url()
    return _orchestrator(url) if url else None


def control() -> Control:
    """The door for changes."""
    return Control(home(), views.store_url(), orchestrator())


@st.cache_resource(max_entries=4, show_spinner=False)
def _catalog(folder: str, url: str, _tracking: str) -> Catalog:
    return open_catalog(Path(folder), views.open_views(url))


@st.cache_resource(max_entries=4, show_spinner=False)
def _orchestrator(url: str) -> Orchestrator:
    return Orchestrator(url)


def inside(folder: str) -> Path:
    """An artifact's folder; the state folder may have been moved since it was made."""
    path = Path(folder)
    moved = home() / "artifacts" / path.name
    return path if path.exists() else moved


def shown(path: Path | str) -> str:
    """A path as a reader finds it again: below the state folder, where it lies there."""
    full = Path(path).absolute()
    state = home().absolute()
    return str(full.relative_to(state) if full.is_relative_to(state) else full)


def read(path: str) -> bytes:
    """A file that a page offers."""
    return Path(path).read_bytes()
