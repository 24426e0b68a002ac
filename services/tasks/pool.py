"""Snapshots of the pool: a frozen file that a recipe names by its digest and trains on.

The pool grows while a run goes on, or between two attempts at one; what a run trains on must not.
So a recipe names a snapshot, ``pools/DIGEST.jsonl`` of R1_HOME, and the digest is part of every
stage's key.
"""

import itertools
import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from services.artifacts import digest_of, write_atomically
from services.errors import ProblemError
from services.types import Problem

NOW: Final = "now"
"""In a recipe: the pool as it is when the run starts."""


def write_snapshot(home: Path, problems: Sequence[Problem]) -> str:
    """Keep problems as a snapshot; its digest. The same problems are the same snapshot."""
    rows = sorted((asdict(problem) for problem in problems), key=lambda row: str(row["id"]))
    digest = digest_of(rows)
    path = snapshot_path(digest, home)
    if not path.is_file():
        lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows]
        write_atomically(path, "".join(line + "\n" for line in lines))
    return digest


def snapshot_path(digest: str, home: Path | None = None) -> Path:
    """Where a snapshot lies."""
    return (home or Path(os.environ.get("R1_HOME") or ".r1")) / "pools" / f"{digest}.jsonl"


def read_snapshot(digest: str, home: Path | None = None) -> list[Problem]:
    """The problems of a snapshot.

    Raises:
        ProblemError: It is not there, is damaged, or holds nothing.
    """
    path = snapshot_path(digest, home)
    if not path.is_file():
        raise ProblemError(
            f"there is no snapshot {path} of the pool",
            "Take one with r1 problems snapshot, or write problems.pool='now'",
        )
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        problems = [Problem(**row) for row in rows]
    except (ValueError, TypeError) as error:
        raise _damaged(path) from error
    if digest_of(rows) != digest:
        raise _damaged(path)
    if not problems:
        raise ProblemError(f"{path} holds no problem", "Add some with: r1 problems add FILE")
    return problems


def mixed(
    own: Sequence[Problem], added: Sequence[Problem], share: float, seed: int
) -> list[Problem]:
    """Every so many problems replaced by an added one, evenly; short pools are cycled through."""
    shuffled = list(added)
    random.Random(f"pool:{seed}").shuffle(shuffled)
    following = itertools.cycle(shuffled)
    return [
        next(following) if int((place + 1) * share) > int(place * share) else problem
        for place, problem in enumerate(own)
    ]


def _damaged(path: Path) -> ProblemError:
    return ProblemError(
        f"{path} is damaged: its content no longer has the digest in its name",
        "Delete it and take a new one with: r1 problems snapshot",
    )
