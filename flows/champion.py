"""The champion as evidence: measured on the candidate's problems, so that the two can be paired.

A champion was measured by the run that made it, perhaps on other problems or by another protocol.
Where its answers do not cover the candidate's problems it is measured again, and the new evaluation
is kept beside the old ones.
"""

from collections.abc import Mapping
from pathlib import Path

from flows.pipeline import Pipeline
from services.errors import ArtifactError
from services.evaluation import measure
from services.export import smoke_test
from services.gates import Evidence, Smoke
from services.registry import Registry
from services.store import store_url
from services.types import CheckpointRef
from services.versions import Version
from services.views import answers, evaluation_ids, open_views, protocol_of


def evidence_of(
    checkpoint: CheckpointRef,
    measured: Mapping[str, float],
    origin: Mapping[str, float],
    evaluation_id: int | None,
    *,
    smoke: bool,
) -> Evidence:
    """What is known of a candidate.

    Args:
        checkpoint: The candidate.
        measured: Its row of the stage table.
        origin: The row of the model that its training started from.
        evaluation_id: Of its single answers in the store; None where they are not at hand.
        smoke: Whether to try if it loads and generates.
    """
    by_problem = {} if evaluation_id is None else answers(open_views(store_url()), evaluation_id)
    tried = try_out(Path(checkpoint.path)) if smoke else None
    return Evidence(measured, by_problem, origin, tried)


def try_out(folder: Path) -> Smoke:
    """Whether a checkpoint loads from its folder alone and generates."""
    try:
        return Smoke("", smoke_test(folder))
    except ArtifactError as error:
        return Smoke(error.what)


def champion_evidence(
    pipeline: Pipeline, registry: Registry, champion: Version, candidate: Evidence
) -> Evidence:
    """What is known of the champion on the candidate's problems.

    Where its folder is gone there is only what was measured before, and means are compared.
    """
    engine = open_views(store_url())
    protocol = pipeline.recipe.evaluation.model_dump(mode="json")
    wanted = candidate.by_problem.get("pass@1", {}).keys()
    for number in reversed(champion.evaluation_ids):
        if protocol_of(engine, number) == protocol:
            found = answers(engine, number)
            if wanted <= found["pass@1"].keys():
                return Evidence(champion.measured, found)
    try:
        folder = registry.resolve(f"models:/{champion.model}/{champion.number}")
    except ArtifactError:
        return Evidence(champion.measured)
    pipeline.progress.say(f"measuring champion {champion.number} of {champion.model} again")
    row = f"champion {champion.number} of {champion.model}"
    result = measure(folder, pipeline.recipe, pipeline.recipe.evaluation, pipeline.clock)
    pipeline.store.write_evaluation(pipeline.run_id, row, result.summary, protocol, result.samples)
    number = evaluation_ids(engine, pipeline.run_id)[row]
    registry.add_evaluation(champion.model, champion.number, number)
    return Evidence(result.summary, answers(engine, number))
