"""What may be removed: artifacts that no champion, no pin, no recent run and nothing waiting needs.

A plan is made first and can be read; removing is a step of its own, with who and why, and leaves a
line in the store and a tag on the version. Kept, always: champions, those that a rollback brings
back, candidates, versions that wait for approval, pinned versions, and the ancestors of all of
these (checkpoints and data sets alike). Kept besides: what the policy says of age and of the last
runs. Only ``artifacts`` of the state folder is looked at; a registry behind a server keeps its own
copies.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select

from services.artifacts import MANIFEST, read_manifest
from services.errors import ArtifactError, RegistryError
from services.policies import Retention
from services.store import approvals, removals
from services.store.opening import reading
from services.store.removals import Removal
from services.store.schema import Runs, Stages
from services.versions import REMOVED

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from services.registry import Registry
    from services.versions import Version


class Artifact(NamedTuple):
    """One finished folder of a stage."""

    path: Path
    stage: str
    digest: str
    parents: tuple[str, ...]
    size_bytes: int
    made_at: datetime


class Kept(NamedTuple):
    """An artifact that stays, and for what."""

    artifact: Artifact
    why: str


class RetentionPlan(NamedTuple):
    """What would go and what stays."""

    removable: list[Artifact]
    kept: list[Kept]

    @property
    def freed_bytes(self) -> int:
        """What removing would free."""
        return sum(artifact.size_bytes for artifact in self.removable)


def plan(
    home: Path,
    registry: "Registry",
    engine: "Engine",
    rule: Retention,
    now: datetime | None = None,
) -> RetentionPlan:
    """Say what may be removed from a state folder; touches nothing.

    Args:
        home: State folder.
        registry: Its registry.
        engine: Its store.
        rule: What is kept besides; the policy's ``retention``.
        now: For tests.
    """
    now = now or datetime.now(UTC)
    artifacts = _artifacts(home)
    why = _with_ancestors(_protected(registry, engine), artifacts, registry)
    recent = _recent_paths(engine, rule.keep_runs)
    kept, removable = [], []
    for artifact in artifacts:
        age = now - artifact.made_at
        if artifact.digest in why:
            kept.append(Kept(artifact, why[artifact.digest]))
        elif artifact.path.resolve() in recent:
            kept.append(Kept(artifact, f"part of run {recent[artifact.path.resolve()]}"))
        elif age < timedelta(days=rule.keep_days):
            kept.append(Kept(artifact, f"made less than {rule.keep_days} days ago"))
        else:
            removable.append(artifact)
    return RetentionPlan(removable, kept)


def remove(
    planned: RetentionPlan, registry: "Registry", engine: "Engine", *, who: str, why: str
) -> list[Removal]:
    """Remove what a plan names; each removal is written down before it happens.

    Raises:
        RegistryError: Who or why is missing.
        ArtifactError: A folder cannot be removed.
    """
    if not who.strip() or not why.strip():
        raise RegistryError("a removal needs who and why", "Say both; they are kept")
    now = datetime.now(UTC)
    done = [
        Removal(str(row.path), row.digest, row.size_bytes, who, why, now)
        for row in planned.removable
    ]
    removals.record(engine, done)
    gone = {row.digest for row in planned.removable}
    said = json.dumps({"who": who, "why": why, "at": now.isoformat(timespec="seconds")})
    for model in registry.models():
        for version in registry.versions(model):
            if version.digest in gone:
                registry.tag(version, {REMOVED: said})
    for row in planned.removable:
        _remove_folder(row.path)
    return done


def _artifacts(home: Path) -> list[Artifact]:
    """Finished artifacts by stage and name; what is under way has a hidden name."""
    found = []
    for folder in sorted((home / "artifacts").glob("[!.]*")):
        manifest = read_manifest(folder)
        if manifest is not None:
            found.append(_artifact(folder, manifest))
    return found


def _artifact(folder: Path, manifest: Mapping[str, Any]) -> Artifact:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Artifact(
        folder,
        str(manifest.get("stage", folder.name)),
        str(manifest["digest"]),
        tuple(manifest.get("parents", ())),
        sum(path.stat().st_size for path in files),
        datetime.fromtimestamp((folder / MANIFEST).stat().st_mtime, UTC),
    )


def _protected(registry: "Registry", engine: "Engine") -> dict[str, str]:
    """Digests that must stay, each with its reason."""
    why: dict[str, str] = {}
    for model in registry.models():
        versions = {version.number: version for version in registry.versions(model)}
        named = registry.aliases(model)
        head = registry.head(model)
        named |= {"champion": head.champion} if head else {}
        named |= {"previous": head.previous} if head and head.previous else {}
        for request in approvals.requests(engine, "waiting", model):
            named[f"waiting for approval {request.id}"] = request.version
        for reason, number in named.items():
            if number in versions:  # MLflow lets people delete a version by hand
                why.setdefault(versions[number].digest, f"{reason} of {model}")
        for version in versions.values():
            if version.pin is not None:
                why.setdefault(version.digest, f"pinned by {version.pin['who']}")
    return why


def _with_ancestors(
    why: Mapping[str, str], artifacts: Sequence[Artifact], registry: "Registry"
) -> dict[str, str]:
    """Add everything that the protected ones were made from, however far back."""
    parents: dict[str, set[str]] = {}
    for artifact in artifacts:
        parents.setdefault(artifact.digest, set()).update(artifact.parents)
    for version in _all_versions(registry):
        parents.setdefault(version.digest, set()).update(version.parents)
    reached = dict(why)
    waiting = list(why)
    while waiting:
        child = waiting.pop()
        for parent in parents.get(child, ()):
            if parent not in reached:
                reason = reached[child]
                reached[parent] = (
                    reason if reason.startswith("ancestor") else f"ancestor of {reason}"
                )
                waiting.append(parent)
    return reached


def _all_versions(registry: "Registry") -> Iterable["Version"]:
    return (version for model in registry.models() for version in registry.versions(model))


def _recent_paths(engine: "Engine", keep_runs: int) -> dict[Path, str]:
    """Artifacts of the last runs and of all that still run."""
    last = select(Runs.id).order_by(Runs.started_at.desc()).limit(keep_runs)
    with reading(engine) as connection:
        runs = {*connection.scalars(last)}
        runs |= {*connection.scalars(select(Runs.id).where(Runs.state == "running"))}
        query = select(Stages.output_path, Stages.run_id).where(
            Stages.run_id.in_(runs), Stages.output_path != ""
        )
        return {Path(path).resolve(): run_id for path, run_id in connection.execute(query)}


def _remove_folder(folder: Path) -> None:
    """Out of sight first, in one step: nobody finds half a folder under a finished name."""
    try:
        hidden = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".removed-{folder.name}."))
        folder.rename(hidden / folder.name)
        shutil.rmtree(hidden)
    except OSError as error:
        raise ArtifactError(
            f"cannot remove {folder}: {error.strerror}", "Mend its permissions and run it again"
        ) from error
