"""The registry on MLflow: checkpoints as model versions, and one champion per model.

Every checkpoint of the line is a version of ``r1``, those of a student of ``r1-distill-NAME``,
tagged with where it came from. Aliases only, no stages: ``candidate`` is what was last put up for
promotion, ``champion`` and ``previous`` follow the ledger of promotions, which alone decides:
MLflow sets an alias without looking, so two promoters at once would both believe to have won.
``sync`` sets the aliases right again after a crash between the two.

A version is a folder of safetensors without MLflow's own model file, so it loads with
``from_pretrained(registry.resolve("models:/r1@champion"))`` and not with ``mlflow.pyfunc``.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from services.artifacts import new_folder, read_manifest
from services.errors import ArtifactError, RegistryError
from services.mlflow_store import has_server, open_client
from services.store.ledger import Promotion, champions
from services.types import CheckpointRef
from services.versions import PIN, Version, require_safetensors, search, version_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MODEL_URI: Final = re.compile(r"models:/(?P<model>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))")
_PAGE: Final = 100
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


Announce = Callable[[Promotion], None]
"""Tells others of a change of champion that has been made."""


def open_registry(home: Path, ledger: Ledger, announce: Announce | None = None) -> "Registry":
    """The registry of a state folder; a store that is not there is created.

    Args:
        home: State folder.
        ledger: Where promotions are kept.
        announce: Called after each change of champion; see ``services.webhooks``.

    Raises:
        StoreError: MLflow's store or server cannot be used.
    """
    return Registry(open_client(home), ledger, home, announce)


class Registry:
    """Registers checkpoints, finds them again, and changes the champion."""

    def __init__(
        self,
        client: "MlflowClient",
        ledger: Ledger,
        home: Path,
        announce: Announce | None = None,
    ) -> None:
        """Use MLflow through ``client`` and decide by ``ledger``."""
        self._client = client
        self._announce = announce
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
            self.tag(known, tags or {})
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

    def versions(self, model: str, at_most: int | None = None) -> list[Version]:
        """Versions of a model, newest first: all, or the newest so many."""
        return search(self._client, f"name = '{model}'", at_most)

    def version(self, model: str, number: int) -> Version:
        """One version.

        Raises:
            RegistryError: There is none of this number.
        """
        return self._require_version(model, number)

    def tag(self, version: Version, tags: Mapping[str, str]) -> None:
        """Say more about a version; what was said under the same name is replaced."""
        for key, value in tags.items():
            if version.tags.get(key) != value:
                self._client.set_model_version_tag(version.model, str(version.number), key, value)

    def add_evaluation(self, model: str, number: int, evaluation_id: int) -> None:
        """Say that an evaluation of the store measured a version, too."""
        version = self._require_version(model, number)
        ids = ",".join(map(str, sorted({*version.evaluation_ids, evaluation_id})))
        self.tag(version, {"evaluation_ids": ids})

    def pin(self, model: str, number: int, *, who: str, why: str) -> None:
        """Keep a version from retention until it is unpinned."""
        _require_words(who, why, "pin")
        self._require_version(model, number)
        pin = {"who": who, "why": why, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        self._client.set_model_version_tag(model, str(number), PIN, json.dumps(pin))

    def unpin(self, model: str, number: int) -> None:
        """Let retention have it again."""
        if self._require_version(model, number).pin is None:
            raise RegistryError(f"version {number} of {model} is not pinned", _SEE)
        self._client.delete_model_version_tag(model, str(number), PIN)

    def models(self) -> list[str]:
        """Names of all registered models of ours."""
        names: list[str] = []
        token: str | None = None
        while token is None or token:
            page = self._client.search_registered_models(max_results=_PAGE, page_token=token)
            names += [found.name for found in page]
            token = page.token or ""
        return sorted(names)

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
            ArtifactError: Its files are gone.
        """
        self._require_files(self._require_version(model, version))
        head = self._ledger.head(model)
        if head is None or head.champion != version:
            if seen not in (None, head.sequence if head else 0):
                raise self._overtaken(model)
            sequence, previous = (head.sequence, head.champion) if head else (0, None)
            now = datetime.now(UTC)
            return self._append(
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
        self._require_files(self._require_version(model, champion))
        sequence, now = history[-1].sequence + 1, datetime.now(UTC)
        return self._append(
            Promotion(model, sequence, "rollback", champion, previous, who, why, now)
        )

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
        _require_words(entry.who, entry.why, entry.action)
        if not self._ledger.append(entry):
            raise self._overtaken(entry.model)
        self.sync(entry.model)
        if self._announce is not None:
            self._announce(entry)  # whoever hears of it finds the alias where it belongs
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
        aliases = self.aliases(head.model)
        wanted = {"champion": head.champion, "previous": head.previous}
        for alias, version in wanted.items():
            if version is None and alias in aliases:
                self._client.delete_registered_model_alias(head.model, alias)
            elif version is not None and aliases.get(alias) != version:
                self._client.set_registered_model_alias(head.model, alias, str(version))
        if aliases.get("candidate") == head.champion:
            self._client.delete_registered_model_alias(head.model, "candidate")

    def aliases(self, model: str) -> dict[str, int]:
        """Alias to version, as MLflow has them."""
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
        return next(iter(search(self._client, f"name = '{model}' and {same}")), None)

    def _require_version(self, model: str, number: int) -> Version:
        with _missing(f"{model} has no version {number}"):
            return version_of(self._client.get_model_version(model, str(number)))

    def _source(self, checkpoint: CheckpointRef, mlflow_run_id: str) -> str:
        """Where MLflow finds the files; a server's clients may not see our disk."""
        folder = Path(checkpoint.path).resolve()
        if not has_server(self._client.tracking_uri):
            return folder.as_uri()
        place = f"checkpoints/{checkpoint.stage}-{checkpoint.digest[:12]}"
        self._client.log_artifacts(mlflow_run_id, str(folder), place)
        return f"{self._client.get_run(mlflow_run_id).info.artifact_uri}/{place}"

    def _require_files(self, version: Version) -> Path | None:
        """The folder of a version in place; None if a server keeps its files."""
        place = urlsplit(version.source)
        if place.scheme not in {"", "file"}:
            return None
        folder = Path(unquote(place.path))
        if not folder.is_dir():
            raise ArtifactError(
                f"version {version.number} of {version.model} lay in {folder}, which is gone",
                "Run its pipeline again, or choose another version",
            )
        return folder

    def _folder(self, version: Version) -> Path:
        """The files on this machine, downloaded once where they are elsewhere."""
        in_place = self._require_files(version)
        if in_place is not None:
            return in_place
        place = urlsplit(version.source)
        from mlflow.artifacts import download_artifacts

        # MLflow downloads a folder into a folder.
        target = self._home / "registry" / f"{version.model}-{version.number}"
        if read_manifest(target) is None:
            with new_folder(target) as folder:
                download_artifacts(
                    version.source, dst_path=str(folder), tracking_uri=self._client.tracking_uri
                )
        return target / PurePosixPath(place.path).name


def _require_words(who: str, why: str, what: str) -> None:
    if not who.strip() or not why.strip():
        raise RegistryError(f"a {what} needs who and why", "Say both; they are kept")


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
