"""What MLflow has registered, read without MLflow: over its REST API, or from its tables.

Importing MLflow and opening its store takes a second and a half, and its client loads every tag of
every version; a page that lists twenty versions waits for neither. Only what pages show is read.
Whether both ways say what MLflow's own client says is held by ``tests/unit/test_model_records.py``.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import httpx
from sqlalchemy import Engine, case, column, create_engine, func, select, table

from services.errors import StoreError
from services.mlflow_store import errors_named, has_server, tracking_uri

TIMEOUT_SECONDS: Final = 10.0
MOST_MODELS: Final = 100
TAGS: Final = ("stage", "digest", "pipeline", "parents", "evaluation")
"""Tags of a version that are read."""


class Record(NamedTuple):
    """One registered version."""

    model: str
    number: int
    created: int
    """Milliseconds since 1970."""
    tags: Mapping[str, str]
    """Those of ``TAGS`` that it has."""


class ModelRecords(Protocol):
    """A way to read the registry."""

    def models(self) -> list[str]:
        """Names of the registered models."""
        ...

    def latest(self, model: str) -> int:
        """Number of the newest version, 0 if there is none."""
        ...

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version."""
        ...

    def versions(self, model: str, newest: int, limit: int) -> list[Record]:
        """Versions up to a number, newest first."""
        ...


def open_records(home: Path) -> ModelRecords:
    """The registry of a state folder.

    Raises:
        StoreError: MLflow's store cannot be opened.
    """
    uri = tracking_uri(home)
    if has_server(uri):
        return ServerRecords(uri)
    with errors_named(home):
        return TableRecords(create_engine(uri), home)


_MODELS = table("registered_models", column("name"))
_VERSIONS = table("model_versions", column("name"), column("version"), column("creation_time"))
_TAGS = table(
    "model_version_tags", column("name"), column("version"), column("key"), column("value")
)
_ALIASES = table("registered_model_aliases", column("name"), column("alias"), column("version"))


class TableRecords:
    """Reads MLflow's tables."""

    def __init__(self, engine: Engine, home: Path) -> None:
        """Read through ``engine``; errors name the store of ``home``."""
        self._engine = engine
        self._home = home

    def models(self) -> list[str]:
        """Names of the registered models."""
        return [name for (name,) in self._rows(select(_MODELS.c.name))]

    def latest(self, model: str) -> int:
        """Number of the newest version, 0 if there is none."""
        query = select(func.max(_VERSIONS.c.version)).where(_VERSIONS.c.name == model)
        return self._rows(query)[0][0] or 0

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version."""
        query = select(_ALIASES.c.alias, _ALIASES.c.version).where(_ALIASES.c.name == model)
        return {alias: int(version) for alias, version in self._rows(query)}

    def versions(self, model: str, newest: int, limit: int) -> list[Record]:
        """Versions up to a number, newest first."""
        about = (_TAGS.c.name == _VERSIONS.c.name) & (_TAGS.c.version == _VERSIONS.c.version)
        tags = [func.max(case((_TAGS.c.key == name, _TAGS.c.value))) for name in TAGS]
        query = (
            select(_VERSIONS.c.version, _VERSIONS.c.creation_time, *tags)
            .select_from(_VERSIONS.outerjoin(_TAGS, about))
            .where(_VERSIONS.c.name == model, _VERSIONS.c.version <= newest)
            .group_by(_VERSIONS.c.version, _VERSIONS.c.creation_time)
            .order_by(_VERSIONS.c.version.desc())
            .limit(limit)
        )
        return [
            Record(model, number, created, _present(zip(TAGS, values, strict=True)))
            for number, created, *values in self._rows(query)
        ]

    def _rows(self, query: Any) -> list[Any]:
        with errors_named(self._home), self._engine.connect() as connection:
            return list(connection.execute(query))


class ServerRecords:
    """Asks a server over MLflow's REST API, version 2.0."""

    def __init__(self, uri: str, transport: httpx.BaseTransport | None = None) -> None:
        """Ask the server at ``uri``."""
        self._uri = uri
        self._client = httpx.Client(
            base_url=f"{uri.rstrip('/')}/api/2.0/mlflow",
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            **_credentials(),
        )

    def models(self) -> list[str]:
        """Names of the registered models."""
        found = self._get("registered-models/search", max_results=MOST_MODELS)
        return [model["name"] for model in found.get("registered_models", [])]

    def latest(self, model: str) -> int:
        """Number of the newest version, 0 if there is none."""
        found = self._search(f"name = '{model}'", 1)
        return int(found[0]["version"]) if found else 0

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version."""
        found = self._get("registered-models/get", name=model)["registered_model"]
        return {one["alias"]: int(one["version"]) for one in found.get("aliases", [])}

    def versions(self, model: str, newest: int, limit: int) -> list[Record]:
        """Versions up to a number, newest first."""
        found = self._search(f"name = '{model}' and version_number <= {newest}", limit)
        return [
            Record(
                model,
                int(one["version"]),
                int(one["creation_timestamp"]),
                _present((tag["key"], tag.get("value")) for tag in one.get("tags", [])),
            )
            for one in found
        ]

    def _search(self, query: str, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get(
            "model-versions/search",
            filter=query,
            max_results=limit,
            order_by="version_number DESC",
        ).get("model_versions", [])
        return found

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        try:
            answer = self._client.get(path, params=query)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise StoreError(
                f"MLflow cannot use {self._uri}: {error}",
                "Start the MLflow server, or mend or unset MLFLOW_TRACKING_URI",
            ) from error
        return found


def _present(tags: Any) -> dict[str, str]:
    return {name: value for name, value in tags if name in TAGS and value is not None}


def _credentials() -> dict[str, Any]:
    """As MLflow's own client sends them."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"headers": {"Authorization": f"Bearer {token}"}}
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    word = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    return {"auth": (name, word)} if name and word else {}
