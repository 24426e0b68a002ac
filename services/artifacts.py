"""Finished means visible: folders are written under a temporary name and renamed when whole.

A folder's ``manifest.json`` is written last. It holds the digest of everything beside it, so a
reader can tell a whole artifact from a damaged one, and a stage can be skipped because its result
is already there.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.errors import ArtifactError

MANIFEST = "manifest.json"


def digest_of(value: object) -> str:
    """SHA-256 of a JSON-able value in canonical form (sorted keys, no blanks)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_folder(folder: Path, without: Collection[str] = ()) -> str:
    """SHA-256 over the names and bytes of all files of a folder, the manifest excluded.

    Args:
        folder: The folder; those below it count, too.
        without: Names of further files that do not count.
    """
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST and path.name not in without:
            total.update(str(path.relative_to(folder)).encode() + b"\0")
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(temporary).replace(path)


@contextmanager
def new_folder(target: Path, facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` when the block ends without an error.

    The manifest gets the digest of the content and ``facts`` as they are when the block ends. If
    ``target`` exists already it is replaced.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise ArtifactError(
            f"cannot write below {target.parent}: {error.strerror}",
            "Choose another folder with R1_HOME or mend its permissions",
        ) from error
    try:
        yield temporary
        manifest = {"digest": digest_folder(temporary), **(facts or {})}
        write_atomically(temporary / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True))
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_torn(target: Path) -> None:
    """Remove what killed writers of ``target`` left; only for who knows that none is at work."""
    for torn in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(torn)


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; the system lets go of it however we end.

    Raises:
        ArtifactError: Another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ArtifactError(
                f"another process is at work on {lock.stem}",
                "Wait until it is done (r1 runs shows it), or stop it first",
            ) from error
        yield  # the file stays: removing it would let two processes hold two files of one name


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished folder, or None if there is no finished folder."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"cannot read {path}", f"Delete {folder}; the stage that wrote it will run again"
        ) from error
    return manifest


def verify_folder(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose content still has the digest it was written with."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise ArtifactError(
            f"{folder} holds no finished artifact", "Run the stage that makes it again"
        )
    if digest_folder(folder) != manifest["digest"]:
        raise ArtifactError(
            f"{folder} is damaged: its content no longer has the digest in its manifest",
            f"Delete {folder}; the stage that wrote it will run again",
        )
    return manifest
