"""Versions of registered models: what they are, which checkpoints may become one, how to list them.

A version is a folder of safetensors with tags that say where it came from: its stage, its parents,
the data sets among them, the recipe and pipeline that made it, and how it was measured.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

LINE: Final = "r1"
"""The registered model of base, zero, dev1, dev2, dev3 and r1."""
PICKLES: Final = frozenset({".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt"})
"""Weights in these files could run code when they are read."""
REMOVED: Final = "files_removed"
"""The tag of a version whose files retention removed: JSON of who, when and why."""
PIN: Final = "pin"
"""The tag of a version that retention must keep: JSON of who, when and why."""
_STUDENT_STAGES: Final = frozenset({"distill", "on-policy", "student-rl", "student-base"})
_PAGE: Final = 1000


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

    @property
    def parents(self) -> tuple[str, ...]:
        """Digests of what it was made from."""
        return tuple(filter(None, self.tags.get("parents", "").split(",")))

    @property
    def measured(self) -> dict[str, float]:
        """Its row of the stage table; empty if it was not evaluated."""
        found: dict[str, float] = json.loads(self.tags.get("evaluation", "{}"))
        return found

    @property
    def evaluation_ids(self) -> tuple[int, ...]:
        """Evaluations of it in the store, oldest first."""
        return tuple(map(int, filter(None, self.tags.get("evaluation_ids", "").split(","))))

    @property
    def pin(self) -> dict[str, str] | None:
        """Who pinned it, when and why; None if nobody did."""
        found: dict[str, str] | None = json.loads(self.tags.get(PIN) or "null")
        return found

    @property
    def removed(self) -> dict[str, str] | None:
        """Who removed its files, when and why; None if nobody did."""
        found: dict[str, str] | None = json.loads(self.tags.get(REMOVED) or "null")
        return found


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


def search(client: "MlflowClient", query: str, at_most: int | None = None) -> list[Version]:
    """The versions that an MLflow query finds, newest first; all, or the newest so many."""
    found: list[Version] = []
    token: str | None = None
    while (token is None or token) and (at_most is None or len(found) < at_most):
        page: Any = client.search_model_versions(
            query,
            max_results=min(_PAGE, at_most or _PAGE),
            order_by=["version_number DESC"],
            page_token=token,
        )
        found += [version_of(entity) for entity in page]
        token = page.token or ""
    return found[:at_most]


def version_of(entity: "ModelVersion") -> Version:
    """MLflow's record as ours."""
    return Version(
        entity.name, int(entity.version), str(entity.source), entity.run_id or "", dict(entity.tags)
    )
