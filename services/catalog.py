"""The registry for reading: its models, a page of versions, who was champion when, exported files.

Nothing here changes anything, nor creates a registry where there is none; changes go through
``services.control``.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from services.artifacts import MANIFEST, read_manifest
from services.errors import RegistryError
from services.mlflow_store import has_server, open_client, tracking_uri
from services.model_records import ModelRecords, Record, open_records
from services.registry import Registry
from services.store.ledger import Promotion, SqlLedger

if TYPE_CHECKING:
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
    return Catalog(open_records(home), SqlLedger(engine), home)


class Catalog:
    """What the registry holds, as plain rows."""

    def __init__(self, records: ModelRecords, ledger: SqlLedger, home: Path) -> None:
        """Read versions from ``records`` and promotions from ``ledger``."""
        self._records = records
        self._ledger = ledger
        self._home = home

    def models(self) -> list[RegisteredModel]:
        """All registered models by name, the line first."""
        return [
            RegisteredModel(name, self._records.latest(name), self.aliases(name))
            for name in sorted(self._records.models(), key=lambda name: (len(name), name))
        ]

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version; champion and previous as the ledger has them."""
        aliases = self._records.aliases(model)
        head = self._ledger.head(model)
        if head is not None:
            aliases |= {"champion": head.champion}
            if head.previous is not None:
                aliases |= {"previous": head.previous}
        return aliases

    def versions(self, model: str, *, limit: int = 20, offset: int = 0) -> list[ModelVersion]:
        """Versions of a model, newest first, at most ``MAX_VERSIONS`` at a time."""
        aliases = self.aliases(model)
        newest = self._records.latest(model) - offset
        found = self._records.versions(model, newest, min(limit, MAX_VERSIONS))
        return [_version(record, aliases) for record in found]

    def version(self, model: str, number: int) -> ModelVersion:
        """One version.

        Raises:
            RegistryError: There is no such version.
        """
        found = self._records.versions(model, number, 1)
        if not found or found[0].number != number:
            raise RegistryError(
                f"{model} has no version {number}", "See what there is with: r1 models"
            )
        return _version(found[0], self.aliases(model))

    def folder(self, version: ModelVersion) -> Path:
        """The files of a version on this machine, for from_pretrained.

        Raises:
            ArtifactError: They are gone.
        """
        registry = Registry(open_client(self._home), self._ledger, self._home)
        return registry.resolve(f"models:/{version.model}/{version.number}")

    def history(self, model: str) -> list[Promotion]:
        """All changes of champion, oldest first."""
        return self._ledger.history(model)


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


def _version(record: Record, aliases: Mapping[str, int]) -> ModelVersion:
    tags = record.tags
    return ModelVersion(
        record.model,
        record.number,
        tags.get("stage", ""),
        tuple(sorted(alias for alias, at in aliases.items() if at == record.number)),
        tags.get("digest", ""),
        tags.get("pipeline", ""),
        tuple(filter(None, tags.get("parents", "").split(","))),
        json.loads(tags.get("evaluation", "{}")),
        datetime.fromtimestamp(record.created / 1000, UTC),
    )
