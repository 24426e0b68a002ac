"""What the decision on a retraining rests on, read from store, registry and models; and its recipe.

Nothing is changed here but the snapshot of the pool that a new retraining names.
"""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from services import views
from services.artifacts import read_manifest
from services.base_models import resolve_model
from services.config import Recipe, Retrain
from services.errors import RetrainError
from services.recipes import validate_recipe
from services.retraining.decision import (
    Champion,
    RetrainPolicy,
    Situation,
    Start,
    Unfinished,
)
from services.store import approvals, pool, retrainings
from services.tasks.pool import write_snapshot
from services.versions import LINE
from services.views.runs import DONE, Stage

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from services.registry import Registry
    from services.store.ledger import Promotion

POLICY_FILE: Final = "policies/retraining.toml"
"""Below the state folder."""
NEEDED: Final[dict[Start, tuple[str, ...]]] = {
    "dev2": ("zero", "cold-start", "dev1", "dev2"),
    "r1": ("zero", "cold-start", "dev1", "dev2", "sft-set", "dev3", "r1"),
    "distill": ("zero", "cold-start", "dev1", "dev2", "sft-set", "dev3", "r1"),
}
"""Stages of the champion's pipeline that a start takes over or goes on from."""


def load_retrain_policy(home: Path) -> RetrainPolicy:
    """The policy of a state folder; its file holds what differs from the defaults.

    Raises:
        RetrainError: The file, a key or a value is not valid.
    """
    path = home / POLICY_FILE
    if not path.is_file():
        return RetrainPolicy()
    try:
        return RetrainPolicy.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RetrainError(f"{path} is not valid TOML: {error}", "Mend that line") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = ", ".join(RetrainPolicy.model_fields)
        raise RetrainError(f"{path}: {where}: {first['msg']}", f"Its keys are {known}") from error


def look(
    engine: "Engine", registry: "Registry", recipe: Recipe, home: Path, now: datetime | None = None
) -> Situation:
    """Read everything that the decision rests on.

    Args:
        engine: On the store.
        registry: Knows the champion.
        recipe: What a retraining of today would run; names base and student.
        home: State folder.
        now: For tests.
    """
    head = registry.head(LINE)
    champion = None if head is None else _champion(registry, head)
    past = retrainings.retrainings(engine, limit=1)
    last = past[0] if past else None
    unfinished = last if last is not None and last.state == "running" else None
    stages = {stage.name: stage for stage in _stages(engine, champion)}
    known = {role: _policy_of(stages.get(name)) for role, name in _ENTRANCES.items()}
    if last is not None:
        known |= {"base": last.base, "student": last.student}
    since = max(
        (moment for moment in (champion and champion.since, last and last.started_at) if moment),
        default=None,
    )
    waiting = approvals.requests(engine, "waiting", LINE)
    return Situation(
        now=now or datetime.now(UTC),
        champion=champion,
        new_problems=pool.unused(engine),
        alarms=_alarms(engine, since),
        base=resolve_model(recipe.models.base, home)[1],
        known_base=known["base"],
        student=resolve_model(recipe.models.student, home)[1],
        known_student=known["student"],
        continues=_continues(stages),
        unfinished=unfinished and _unfinished(unfinished),
        waiting=f"version {waiting[0].version}" if waiting else "",
    )


def retrain_recipe(
    recipe: Recipe, start: Start, situation: Situation, engine: "Engine", home: Path
) -> Recipe:
    """The recipe of a new retraining: everything that decides what it computes.

    It differs from the policy's recipe in name and seed, so its problems are other ones, in the
    snapshot of the pool as it is now, and in what it takes over.

    Args:
        recipe: The policy's.
        start: First stage that is trained anew.
        situation: Names the champion.
        engine: On the store.
        home: State folder, which keeps the snapshot.
    """
    past = retrainings.retrainings(engine, limit=1)
    number = past[0].id + 1 if past else 1
    problems = [row.problem for row in pool.pooled(engine)]
    added = write_snapshot(home, problems) if problems else ""
    warm = situation.champion if start != "zero" else None
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-retrain-{number}",
            "seed": recipe.seed + number,
            "problems": recipe.problems.model_copy(update={"pool": added}),
            "retrain": Retrain(champion=warm.run_id if warm else "", start=start),
        }
    )


def stored_recipe(text: str) -> Recipe:
    """The recipe of a retraining that was begun before."""
    raw: dict[str, Any] = Recipe.model_validate_json(text).model_dump(mode="json")
    return validate_recipe(raw)


_ENTRANCES: Final = {"base": "zero", "student": "distill"}
"""Stages whose policy is a model that entered."""


def _champion(registry: "Registry", head: "Promotion") -> Champion:
    version = registry.version(LINE, head.champion)
    return Champion(head.champion, version.tags.get("pipeline", ""), head.at)


def _stages(engine: "Engine", champion: Champion | None) -> list[Stage]:
    if champion is None or not champion.run_id:
        return []
    try:
        return views.run_overview(engine, champion.run_id).stages
    except views.StoreError:  # it was made by a pipeline of another store
        return []


def _policy_of(stage: Stage | None) -> str:
    return "" if stage is None else stage.inputs.get("policy", "")


def _continues(stages: dict[str, Stage]) -> frozenset[Start]:
    whole = {
        name
        for name, stage in stages.items()
        if stage.state in DONE
        and stage.output_path
        and read_manifest(Path(stage.output_path)) is not None
    }
    return frozenset(start for start, needed in NEEDED.items() if whole.issuperset(needed))


def _alarms(engine: "Engine", since: datetime | None) -> tuple[str, ...]:
    """What the champion's monitor said after a moment, newest first."""
    return tuple(
        alarm.message
        for alarm in views.alarms(engine)
        if alarm.source == "monitor" and alarm.stage == LINE and (since is None or alarm.at > since)
    )


def _unfinished(row: retrainings.Retraining) -> Unfinished:
    start: Start = row.start  # type: ignore[assignment]
    return Unfinished(row.id, row.run_id, start, row.attempts)
