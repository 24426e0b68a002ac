"""What happens to finished models: registered, judged by the gate, promoted or not, exported.

Every checkpoint becomes a version in the registry with its measurement. The last one of the line
and the taught student are candidates, each for a champion of its own. The gate decides from
evidence alone, so the decision can be repeated from it; where the policy wants a person to say yes,
the decision is a request (``services.approvals``) and the run does not wait for the answer.
"""

import getpass
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from prefect.artifacts import create_markdown_artifact

from flows.champion import champion_evidence, evidence_of
from flows.pipeline import Pipeline, StagePlan, StageRun
from services.approvals import open_approvals
from services.artifacts import digest_of, read_manifest
from services.config import Evaluation, Gate
from services.config_base import Settings
from services.evaluation import prompting_of
from services.export import Provenance, export_checkpoint
from services.gates import Decision, decide
from services.line import open_line
from services.policies import Monitoring, Policy, Retention, load_policy, tightened
from services.recipes import recipe_digest
from services.registry import Registry
from services.store import store_url
from services.store.approvals import ApprovalRequest
from services.types import CheckpointRef
from services.versions import model_of
from services.views import evaluation_ids, open_views

CANDIDATE = "r1"
"""The row of the stage table that is exported."""
DECISIONS_FILE = "decisions.json"


class Contest(NamedTuple):
    """One candidate and what it is held against."""

    row: str
    """The candidate in the stage table."""
    origin: str
    """The row of the model that its training started from."""
    model: str
    """Registered model whose champion it would be."""
    policy: Policy


class Asked(Settings):
    """What the gates ask for: the settings of the stage, so another policy is another decision."""

    policies: dict[str, Policy]


def contests(pipeline: Pipeline) -> list[Contest]:
    """The candidates of a recipe, each with the policy of its registered model."""
    recipe = pipeline.recipe
    entered: list[tuple[str, str, str, Gate]] = [
        (CANDIDATE, "base", "r1", recipe.gate),
        ("distill", "student-base", "distill", recipe.distill_gate),
    ]
    found = []
    for row, origin, stage, gate_settings in entered:
        model = model_of(stage, recipe.models.student)
        policy = tightened(load_policy(model, pipeline.home), gate_settings)
        found.append(Contest(row, origin, model, policy))
    return found


def gate(
    pipeline: Pipeline,
    checkpoints: Mapping[str, CheckpointRef],
    measured: Mapping[str, Mapping[str, float]],
) -> None:
    """Register every checkpoint and decide which candidates become champion."""
    entered = [contest for contest in contests(pipeline) if contest.row in checkpoints]

    def body(stage: StageRun) -> None:
        registry = open_line(pipeline.home, store_url())
        ids = evaluation_ids(open_views(store_url()), pipeline.run_id)
        versions = {
            row: _register(registry, stage, checkpoint, measured[row], ids.get(row))
            for row, checkpoint in checkpoints.items()
        }
        decided = [
            _contest(registry, stage, contest, checkpoints, measured, versions, ids)
            for contest in entered
        ]
        (stage.output / DECISIONS_FILE).write_text(json.dumps(decided, indent=2), encoding="utf-8")

    asked = Asked(policies={contest.model: _of_the_gate(contest.policy) for contest in entered})
    made = pipeline.checkpoint(StagePlan("gate", "gate", asked, checkpoints), body)
    pipeline.decision = "\n".join(answers_now(pipeline, Path(made.path)))


def _of_the_gate(policy: Policy) -> Policy:
    """What of a policy decides here: another tolerance of the monitor is no other decision."""
    return policy.model_copy(update={"monitoring": Monitoring(), "retention": Retention()})


def answers_now(pipeline: Pipeline, made: Path) -> list[str]:
    """What the gate said of each candidate, and what became of it since a person was asked."""
    decided = json.loads((made / DECISIONS_FILE).read_text(encoding="utf-8"))
    said = []
    for row in decided:
        text = row["said"]
        if row["request"] is not None:
            line = open_line(pipeline.home, store_url())
            request = open_approvals(store_url(), line).get(row["request"])
            text = _waits(request) if request.state == "waiting" else _answered(request)
        said.append(text)
    return said


def requests_of(made: Path) -> list[int]:
    """Numbers of the approval requests that a finished gate stage left, for who waits for them."""
    decided = json.loads((made / DECISIONS_FILE).read_text(encoding="utf-8"))
    return [row["request"] for row in decided if row["request"] is not None]


def _contest(
    registry: Registry,
    stage: StageRun,
    contest: Contest,
    checkpoints: Mapping[str, CheckpointRef],
    measured: Mapping[str, Mapping[str, float]],
    versions: Mapping[str, int],
    ids: Mapping[str, int],
) -> dict[str, Any]:
    """Decide on one candidate, and do what the decision says."""
    pipeline, version = stage.pipeline, versions[contest.row]
    head = registry.head(contest.model)
    seen = head.sequence if head else 0
    champion = registry.version(contest.model, head.champion) if head else None
    candidate = evidence_of(
        checkpoints[contest.row],
        measured[contest.row],
        measured[contest.origin],
        ids.get(contest.row),
        smoke=contest.policy.smoke,
    )
    against = None
    if champion is not None and champion.number != version:  # nobody regresses against itself
        against = champion_evidence(pipeline, registry, champion, candidate)
    decision = decide(candidate, against, contest.policy)
    request = None
    if decision.promote and (champion is None or champion.number != version):
        request = _promote_or_ask(pipeline, registry, contest, version, seen, decision)
    elif not decision.promote:
        registry.nominate(contest.model, version)
    said = _said(decision, contest.model, version) if request is None else _waits(request)
    pipeline.store.write_decision(
        pipeline.run_id,
        contest.row,
        candidate_digest=checkpoints[contest.row].digest,
        champion_digest=champion.digest if champion else "",
        promoted=decision.promote and request is None,
        reasons=decision.reasons,
        note=said.partition(":")[0],
    )
    _show(stage, contest, said, decision)
    return {
        "model": contest.model,
        "row": contest.row,
        "version": version,
        "seen": seen,
        "said": said,
        "request": request.id if request else None,
        **asdict(decision),
        "policy": contest.policy.model_dump(mode="json"),
    }


def _promote_or_ask(
    pipeline: Pipeline,
    registry: Registry,
    contest: Contest,
    version: int,
    seen: int,
    decision: Decision,
) -> ApprovalRequest | None:
    """Make the candidate champion, or ask a person to."""
    registry.nominate(contest.model, version)
    if contest.policy.approval.required == "always":
        return open_approvals(store_url(), registry).request(
            model=contest.model,
            version=version,
            seen=seen,
            reasons=decision.reasons,
            terms=contest.policy.approval,
            run_id=pipeline.run_id,
        )
    registry.promote(
        contest.model,
        version,
        who=getpass.getuser(),
        why=f"gate of {pipeline.run_id}",
        seen=seen,
    )
    return None


def _show(stage: StageRun, contest: Contest, said: str, decision: Decision) -> None:
    """Leave the decision where people look: the stage's facts, MLflow, Prefect."""
    stage.facts[f"decision/{contest.model}"] = said
    outcome = said.partition(":")[0]
    lines = [
        f"# {outcome}",
        "",
        "| passed | reason |",
        "|---|---|",
        *(f"| {'yes' if row.passed else 'no'} | {row.reason} |" for row in decision.checks),
    ]
    text = "\n".join(lines)
    stage.track.tag({f"r1.gate.{contest.model}": outcome})
    stage.track.text(f"gate/{contest.model}.md", text)
    key = f"r1-gate-{contest.row}"
    create_markdown_artifact(key=key, markdown=text, description=f"{stage.pipeline.run_id}: {said}")


def _register(
    registry: Registry,
    stage: StageRun,
    checkpoint: CheckpointRef,
    summary: Mapping[str, float],
    evaluation_id: int | None,
) -> int:
    pipeline = stage.pipeline
    manifest = read_manifest(Path(checkpoint.path)) or {}
    data = [pipeline.digests[name] for name in ("cold-start", "sft-set")]
    tags = {
        "evaluation": json.dumps(summary),
        "data": ",".join(digest for digest in data if digest in checkpoint.parents),
        "problems": digest_of(pipeline.recipe.problems.model_dump(mode="json")),
        "recipe": pipeline.recipe.name,
    }
    model = model_of(checkpoint.stage, pipeline.recipe.models.student)
    number = registry.register(
        checkpoint,
        model=model,
        pipeline=pipeline.run_id,
        recipe_digest=recipe_digest(pipeline.recipe),
        mlflow_run_id=manifest.get("mlflow_run_id", stage.track.mlflow_run_id),
        tags=tags,
    )
    if evaluation_id is not None:
        registry.add_evaluation(model, number, evaluation_id)
    return number


def _said(decision: Decision, model: str, version: int) -> str:
    verdict = "is champion" if decision.promote else "was not promoted"
    return f"{model} version {version} {verdict}: {'; '.join(decision.reasons)}"


def _waits(request: ApprovalRequest) -> str:
    until = request.expires_at.isoformat(timespec="minutes")
    return (
        f"{request.model} version {request.version} waits for approval {request.id}: "
        f"r1 approvals approve {request.id} --why …, until {until}, then {request.at_timeout}"
    )


def _answered(request: ApprovalRequest) -> str:
    about = f"{request.model} version {request.version}"
    outcome = f" ({request.outcome})" if request.outcome else ""
    return f"{about} was {request.state}{outcome}: {request.who}: {request.why}"


def export(pipeline: Pipeline, checkpoint: CheckpointRef) -> None:
    """Write the final checkpoint as a self-contained folder with its card."""
    plan = StagePlan("export", "export", pipeline.recipe.models, {"policy": checkpoint})

    recipe = pipeline.recipe

    def body(stage: StageRun) -> None:
        export_checkpoint(
            checkpoint,
            stage.output / CANDIDATE,
            Provenance(
                name=f"{recipe.name}-r1",
                pipeline=pipeline.run_id,
                recipe=recipe.name,
                recipe_digest=recipe_digest(recipe),
                base=recipe.models.base,
                metrics=pipeline.measured[CANDIDATE],
                protocol=_protocol(recipe.evaluation),
                prompting=prompting_of(recipe, Path(checkpoint.path)),
            ),
        )

    made = pipeline.checkpoint(plan, body)
    pipeline.exported = str(Path(made.path) / CANDIDATE)


def _protocol(settings: Evaluation) -> str:
    return (
        f"{settings.problems_per_level} held-out problems of each level, {settings.samples} "
        f"samples of each at temperature {settings.temperature} and top-p {settings.top_p}."
    )
