"""The registry for reading: its models, a page of versions, who was champion when, exported files.

Nothing here changes anything, nor creates a registry where there is none; changes go through
``services.control``.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from services.artifacts import MANIFEST, read_manifest
from services.errors import RegistryError
from services.mlflow_store import errors_named, has_server, open_client, tracking_uri
from services.registry import Registry
from services.store.ledger import Promotion, SqlLedger

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sqlalchemy import Engine

MAX_VERSIONS = 100


class RegisteredModel(NamedTuple):
    """A model of the registry."""

    name: str
    latest: int
    """Number of its newest version."""
    aliases: Mapping[str, int]


class ModelVersion(NamedTuple):
    """One registered checkpoint."""

    model: str
    number: int
    stage: str
    """The stage that made it."""
    aliases: tuple[str, ...]
    digest: str
    pipeline: str
    """Run id of the pipeline that made it."""
    parents: tuple[str, ...]
    """Digests of what it was made from."""
    evaluation: Mapping[str, float]
    """What its evaluation showed, by metric."""
    registered_at: datetime


class ExportedFile(NamedTuple):
    """One file of an exported model."""

    name: str
    path: str
    size: int
    """Bytes."""


def has_registry(home: Path) -> bool:
    """Whether there is a registry to read."""
    return has_server(tracking_uri(home)) or (home / "mlflow.db").exists()


def open_catalog(home: Path, engine: "Engine") -> "Catalog":
    """The catalog of a state folder.

    Args:
        home: State folder.
        engine: Of ``views.open_views``; it need not write.

    Raises:
        RegistryError: Nothing was registered yet.
        StoreError: MLflow or the store cannot be read.
    """
    if not has_registry(home):
        raise RegistryError("nothing was registered yet", "The gate of a pipeline does: r1 run")
    return Catalog(open_client(home), SqlLedger(engine), home)


class Catalog:
    """What the registry holds, as plain rows."""

    def __init__(self, client: "MlflowClient", ledger: SqlLedger, home: Path) -> None:
        """Read MLflow through ``client`` and promotions from ``ledger``."""
        self._client = client
        self._ledger = ledger
        self._home = home

    def models(self) -> list[RegisteredModel]:
        """All registered models by name, the line first."""
        with errors_named(self._home):
            found = self._client.search_registered_models(max_results=MAX_VERSIONS)
            return [
                RegisteredModel(model.name, self._latest(model.name), self.aliases(model.name))
                for model in sorted(found, key=lambda model: (len(model.name), model.name))
            ]

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version; champion and previous as the ledger has them."""
        with errors_named(self._home):
            told = self._client.get_registered_model(model).aliases
        aliases = {str(alias): int(number) for alias, number in told.items()}
        head = self._ledger.head(model)
        if head is not None:
            aliases |= {"champion": head.champion}
            if head.previous is not None:
                aliases |= {"previous": head.previous}
        return aliases

    def versions(self, model: str, *, limit: int = 20, offset: int = 0) -> list[ModelVersion]:
        """Versions of a model, newest first, at most ``MAX_VERSIONS`` at a time."""
        aliases = self.aliases(model)
        newest = self._latest(model) - offset
        with errors_named(self._home):
            page = self._client.search_model_versions(
                f"name = '{model}' and version_number <= {newest}",
                max_results=min(limit, MAX_VERSIONS),
                order_by=["version_number DESC"],
            )
        return [_version(entity, aliases) for entity in page]

    def version(self, model: str, number: int) -> ModelVersion:
        """One version.

        Raises:
            RegistryError: There is no such version.
        """
        from mlflow.exceptions import MlflowException

        try:
            entity = self._client.get_model_version(model, str(number))
        except MlflowException as error:
            raise RegistryError(
                f"{model} has no version {number}", "See what there is with: r1 models"
            ) from error
        return _version(entity, self.aliases(model))

    def folder(self, version: ModelVersion) -> Path:
        """The files of a version on this machine, for from_pretrained.

        Raises:
            ArtifactError: They are gone.
        """
        registry = Registry(self._client, self._ledger, self._home)
        return registry.resolve(f"models:/{version.model}/{version.number}")

    def history(self, model: str) -> list[Promotion]:
        """All changes of champion, oldest first."""
        return self._ledger.history(model)

    def _latest(self, model: str) -> int:
        page = self._client.search_model_versions(
            f"name = '{model}'", max_results=1, order_by=["version_number DESC"]
        )
        return int(page[0].version) if page else 0


def exported_files(folder: Path) -> list[ExportedFile]:
    """The files of a finished export, the models in it by name; empty if it is gone."""
    if read_manifest(folder) is None:
        return []
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [
        ExportedFile(str(path.relative_to(folder)), str(path), path.stat().st_size)
        for path in files
        if path.name != MANIFEST
    ]


def _version(entity: Any, aliases: Mapping[str, int]) -> ModelVersion:
    tags = dict(entity.tags)
    number = int(entity.version)
    return ModelVersion(
        entity.name,
        number,
        tags.get("stage", ""),
        tuple(sorted(alias for alias, at in aliases.items() if at == number)),
        tags.get("digest", ""),
        tags.get("pipeline", ""),
        tuple(filter(None, tags.get("parents", "").split(","))),
        json.loads(tags.get("evaluation", "{}")),
        datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC),
    )
