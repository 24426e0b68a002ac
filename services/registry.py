"""The registry on MLflow: checkpoints as model versions, and one champion per model.

Every checkpoint of the line is a version of ``r1``, those of a student of ``r1-distill-NAME``,
tagged with where it came from. Aliases only, no stages: ``candidate`` is what was last put up for
promotion, ``champion`` and ``previous`` follow the ledger of promotions, which alone decides:
MLflow sets an alias without looking, so two promoters at once would both believe to have won.
``sync`` sets the aliases right again after a crash between the two.

A version is a folder of safetensors without MLflow's own model file, so it loads with
``from_pretrained(registry.resolve("models:/r1@champion"))`` and not with ``mlflow.pyfunc``.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from services.artifacts import new_folder, read_manifest
from services.errors import ArtifactError, RegistryError
from services.mlflow_store import has_server, open_client
from services.store.ledger import Promotion, champions
from services.types import CheckpointRef

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LINE: Final = "r1"
"""The registered model of base, zero, dev1, dev2, dev3 and r1."""
PICKLES: Final = frozenset({".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt"})
"""Weights in these files could run code when they are read."""
_STUDENT_STAGES: Final = frozenset({"distill", "on-policy", "student-rl", "student-base"})
_MODEL_URI: Final = re.compile(r"models:/(?P<model>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))")
_PAGE: Final = 1000
_RACES: Final = 10
"""So many times in a row another process may be faster with an alias."""
_SEE: Final = "See what there is with: r1 models"


class Ledger(Protocol):
    """Where promotions are kept, in a place that decides between two who come at once."""

    def history(self, model: str) -> list[Promotion]:
        """All entries of a model, oldest first."""
        ...

    def head(self, model: str) -> Promotion | None:
        """The last entry of a model."""
        ...

    def append(self, entry: Promotion) -> bool:
        """Write the next entry; False if another one has taken its number."""
        ...


@dataclass(frozen=True, slots=True)
class Version:
    """One registered checkpoint."""

    model: str
    number: int
    source: str
    """URI of the folder."""
    mlflow_run_id: str
    tags: Mapping[str, str]

    @property
    def stage(self) -> str:
        """The stage that made it."""
        return self.tags["stage"]

    @property
    def digest(self) -> str:
        """Digest of the checkpoint."""
        return self.tags["digest"]


def model_of(stage: str, student: str) -> str:
    """The registered model that a stage's checkpoint belongs to.

    Args:
        stage: Name of the stage, or ``base`` and ``student-base`` for the models that enter.
        student: The recipe's student, in any of its forms (``bundled:tiny-student``).
    """
    if stage not in _STUDENT_STAGES:
        return LINE
    return f"{LINE}-distill-{re.split('[:/]', student.rstrip('/'))[-1]}"


def require_safetensors(folder: Path) -> None:
    """Refuse a folder that is no checkpoint of safetensors alone.

    Raises:
        RegistryError: It has no safetensors, or a file that may hold a pickle.
    """
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    pickled = [name for name in names if Path(name).suffix in PICKLES]
    if pickled:
        raise RegistryError(
            f"{folder} holds {pickled[0]}, and reading a pickle can run code",
            "Save the model with save_pretrained, which writes safetensors, and leave that out",
        )
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise RegistryError(
            f"{folder} is no checkpoint: it lacks config.json or safetensors",
            "Name a folder that save_pretrained wrote",
        )


def open_registry(home: Path, ledger: Ledger) -> "Registry":
    """The registry of a state folder; a store that is not there is created.

    Raises:
        StoreError: MLflow's store or server cannot be used.
    """
    return Registry(open_client(home), ledger, home)


class Registry:
    """Registers checkpoints, finds them again, and changes the champion."""

    def __init__(self, client: "MlflowClient", ledger: Ledger, home: Path) -> None:
        """Use MLflow through ``client`` and decide by ``ledger``."""
        self._client = client
        self._ledger = ledger
        self._home = home

    def register(
        self,
        checkpoint: CheckpointRef,
        *,
        model: str,
        pipeline: str,
        recipe_digest: str,
        mlflow_run_id: str,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """Make a checkpoint a version of ``model``, or find the version that it is.

        A checkpoint of the same stage and digest is the same version, whichever pipeline comes
        with it; only ``tags`` are brought up to date. A local registry refers to the folder in
        place, one behind a server gets a copy.

        Args:
            checkpoint: The finished model.
            model: Registered model, see ``model_of``.
            pipeline: Run id of the pipeline that made it.
            recipe_digest: Of the recipe that made it.
            mlflow_run_id: The MLflow run of its stage.
            tags: More about it: digests of data sets, ids of evaluations.

        Raises:
            RegistryError: The folder holds a pickle or no safetensors.
        """
        require_safetensors(Path(checkpoint.path))
        self._ensure_model(model)
        known = self._find(model, checkpoint)
        if known is not None:
            for key, value in (tags or {}).items():
                if known.tags.get(key) != value:
                    self._client.set_model_version_tag(model, str(known.number), key, value)
            return known.number
        lineage = {
            "stage": checkpoint.stage,
            "digest": checkpoint.digest,
            "parents": ",".join(checkpoint.parents),
            "pipeline": pipeline,
            "recipe_digest": recipe_digest,
        }
        created = self._client.create_model_version(
            model,
            source=self._source(checkpoint, mlflow_run_id),
            run_id=mlflow_run_id,
            tags={**(tags or {}), **lineage},
        )
        return int(created.version)

    def versions(self, model: str) -> list[Version]:
        """All versions of a model, newest first."""
        return self._search(f"name = '{model}'")

    def nominate(self, model: str, version: int) -> None:
        """Point ``candidate`` to a version that is put up for promotion."""
        self._require_version(model, version)
        self._client.set_registered_model_alias(model, "candidate", str(version))

    def head(self, model: str) -> Promotion | None:
        """The last change of champion, or None if there never was a champion."""
        return self._ledger.head(model)

    def history(self, model: str) -> list[Promotion]:
        """All changes of champion, oldest first."""
        return self._ledger.history(model)

    def promote(
        self, model: str, version: int, *, who: str, why: str, seen: int | None = None
    ) -> Promotion:
        """Make a version the champion; the champion so far becomes ``previous``.

        Promoting the champion changes nothing.

        Args:
            model: Registered model.
            version: The new champion.
            who: Who decided.
            why: For what reason.
            seen: Sequence of the ledger entry that the decision was made on, 0 if there was none;
                by default that of the present one.

        Raises:
            RegistryError: There is no such version, or somebody else was faster.
        """
        self._require_version(model, version)
        head = self._ledger.head(model)
        if head is None or head.champion != version:
            if seen not in (None, head.sequence if head else 0):
                raise self._overtaken(model)
            sequence, previous = (head.sequence, head.champion) if head else (0, None)
            now = datetime.now(UTC)
            head = self._append(
                Promotion(model, sequence + 1, "promote", version, previous, who, why, now)
            )
        self.sync(model)
        return head

    def rollback(self, model: str, *, who: str, why: str) -> Promotion:
        """Bring back the champion before this one; once more, the one before that.

        Args:
            model: Registered model.
            who: Who decided.
            why: For what reason.

        Raises:
            RegistryError: There is none before this one, or somebody else was faster.
        """
        history = self._ledger.history(model)
        line = champions(history)
        if len(line) < 2:
            raise RegistryError(f"{model} has no champion to go back to", _SEE)
        champion, previous = line[-2], (line[-3] if len(line) > 2 else None)
        sequence, now = history[-1].sequence + 1, datetime.now(UTC)
        entry = self._append(
            Promotion(model, sequence, "rollback", champion, previous, who, why, now)
        )
        self.sync(model)
        return entry

    def sync(self, model: str) -> None:
        """Set MLflow's aliases as the ledger says.

        Whoever writes last looks at the ledger once more, so the aliases end up right however many
        do this at once.
        """
        head = self._ledger.head(model)
        while head is not None:
            self._set_in_a_race(head)
            newer = self._ledger.head(model)
            head = newer if newer != head else None

    def resolve(self, uri: str) -> Path:
        """The folder of ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``, for from_pretrained.

        Raises:
            RegistryError: There is no such version.
            ArtifactError: Its folder is gone.
        """
        parts = _MODEL_URI.fullmatch(uri)
        if parts is None:
            raise RegistryError(
                f"{uri!r} names no model version", "Write models:/r1@champion or models:/r1/3"
            )
        model, alias = parts["model"], parts["alias"]
        number = int(parts["version"]) if parts["version"] else self._behind(model, alias)
        return self._folder(self._require_version(model, number))

    def _append(self, entry: Promotion) -> Promotion:
        if not entry.who.strip() or not entry.why.strip():
            raise RegistryError(f"a {entry.action} needs who and why", "Say both; they are kept")
        if not self._ledger.append(entry):
            raise self._overtaken(entry.model)
        return entry

    def _overtaken(self, model: str) -> RegistryError:
        head = self._ledger.head(model)
        news = f"{head.who} made it version {head.champion} ({head.why})" if head else "it is none"
        return RegistryError(
            f"the champion of {model} was changed meanwhile: {news}",
            "Compare with the champion of now and decide again",
        )

    def _set_in_a_race(self, head: Promotion) -> None:
        """Set aliases although MLflow fails when two set the same one for the first time."""
        from mlflow.exceptions import MlflowException

        for patience in reversed(range(_RACES)):
            try:
                return self._set_aliases(head)
            except MlflowException as error:
                if not patience or error.error_code != "BAD_REQUEST":
                    raise

    def _set_aliases(self, head: Promotion) -> None:
        aliases = self._aliases(head.model)
        wanted = {"champion": head.champion, "previous": head.previous}
        for alias, version in wanted.items():
            if version is None and alias in aliases:
                self._client.delete_registered_model_alias(head.model, alias)
            elif version is not None and aliases.get(alias) != version:
                self._client.set_registered_model_alias(head.model, alias, str(version))
        if aliases.get("candidate") == head.champion:
            self._client.delete_registered_model_alias(head.model, "candidate")

    def _aliases(self, model: str) -> dict[str, int]:
        aliases = self._client.get_registered_model(model).aliases
        return {alias: int(version) for alias, version in aliases.items()}

    def _behind(self, model: str, alias: str) -> int:
        """The version of an alias; where the ledger knows it, MLflow is not asked."""
        head = self._ledger.head(model)
        known = {"champion": head.champion, "previous": head.previous} if head else {}
        if alias not in known:
            with _missing(f"{model} has no {alias}"):
                return int(self._client.get_model_version_by_alias(model, alias).version)
        number = known[alias]
        if number is None:
            raise RegistryError(f"{model} has no {alias}", _SEE)
        return number

    def _ensure_model(self, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _find(self, model: str, checkpoint: CheckpointRef) -> Version | None:
        same = f"tags.digest = '{checkpoint.digest}' and tags.stage = '{checkpoint.stage}'"
        return next(iter(self._search(f"name = '{model}' and {same}")), None)

    def _search(self, query: str) -> list[Version]:
        found: list[Version] = []
        token: str | None = None
        while token is None or token:
            page = self._client.search_model_versions(
                query, max_results=_PAGE, order_by=["version_number DESC"], page_token=token
            )
            found += [_version(entity) for entity in page]
            token = page.token or ""
        return found

    def _require_version(self, model: str, number: int) -> Version:
        with _missing(f"{model} has no version {number}"):
            return _version(self._client.get_model_version(model, str(number)))

    def _source(self, checkpoint: CheckpointRef, mlflow_run_id: str) -> str:
        """Where MLflow finds the files; a server's clients may not see our disk."""
        folder = Path(checkpoint.path).resolve()
        if not has_server(self._client.tracking_uri):
            return folder.as_uri()
        place = f"checkpoints/{checkpoint.stage}-{checkpoint.digest[:12]}"
        self._client.log_artifacts(mlflow_run_id, str(folder), place)
        return f"{self._client.get_run(mlflow_run_id).info.artifact_uri}/{place}"

    def _folder(self, version: Version) -> Path:
        """The files on this machine, downloaded once where they are elsewhere."""
        place = urlsplit(version.source)
        if place.scheme in {"", "file"}:
            folder = Path(unquote(place.path))
            if not folder.is_dir():
                raise ArtifactError(
                    f"version {version.number} of {version.model} lay in {folder}, which is gone",
                    "Run its pipeline again, or choose another version",
                )
            return folder
        from mlflow.artifacts import download_artifacts

        # MLflow downloads a folder into a folder.
        target = self._home / "registry" / f"{version.model}-{version.number}"
        if read_manifest(target) is None:
            with new_folder(target) as folder:
                download_artifacts(
                    version.source, dst_path=str(folder), tracking_uri=self._client.tracking_uri
                )
        return target / PurePosixPath(place.path).name


@contextmanager
def _missing(what: str) -> Iterator[None]:
    """What MLflow does not find, or could not by that name, becomes a RegistryError."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        raise RegistryError(what, _SEE) from error


def _version(entity: "ModelVersion") -> Version:
    return Version(
        entity.name, int(entity.version), str(entity.source), entity.run_id or "", dict(entity.tags)
    )
