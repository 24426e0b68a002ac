"""A pipeline is refused before its first stage if the disk cannot hold it."""

from pathlib import Path

from flows.identity import STAGES
from flows.pipeline import Pipeline
from services.store import store_url
from services.training.disk import disk_by_stage, forecast, parameters_of, require_space
from services.types import CheckpointRef
from services.views import open_views, run_overview


def require_disk(pipeline: Pipeline, base: CheckpointRef, student: CheckpointRef) -> None:
    """Forecast what the stages that are still to be run take, and refuse if it does not fit.

    Raises:
        ArtifactError: The disk of the state folder has too little room.
    """
    last = STAGES.index(pipeline.until) if pipeline.until else len(STAGES)
    views = open_views(store_url())
    overview = run_overview(views, pipeline.run_id)
    views.dispose()
    done = {stage.name for stage in overview.stages if stage.state in ("finished", "reused")}
    wanted = [
        stage
        for stage in disk_by_stage(
            pipeline.recipe, parameters_of(Path(base.path)), parameters_of(Path(student.path))
        )
        if STAGES.index(stage.stage) <= last
    ]
    require_space(pipeline.home, forecast(wanted, done))
