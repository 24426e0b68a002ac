"""Tracking on MLflow: one parent run per pipeline, one nested run per stage, numbers per step.

Runs are found again by their tags, so a pipeline that was killed goes on in the same MLflow runs,
and whatever it tells twice is kept once: a number is stored unless its name already has that step
or a later one. Numbers are buffered and sent in batches; call ``flush`` before saving a checkpoint
to resume from, else up to two seconds of curves are lost with the process. MLflow forbids ``@`` in
names: ``pass@1`` is ``pass_at_1`` there. Rollouts and texts are the store's, not MLflow's.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self, TypeVar

from services.config import Recipe
from services.errors import StoreError
from services.mlflow_store import errors_named, has_server, open_client, tracking_uri
from services.recipes import flat_parameters, recipe_digest
from services.types import CheckpointRef, DatasetRef

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

Outcome = Literal["FINISHED", "FAILED", "KILLED"]
Input = DatasetRef | CheckpointRef
_Row = TypeVar("_Row")

EXPERIMENT: Final = "r1"
FLUSH_SECONDS: Final = 2.0
"""Numbers wait at most about this long; a batch costs as much as a single value."""
_METRICS_PER_BATCH: Final = 1000
_PARAMETERS_PER_BATCH: Final = 100
_DATASET_DIGEST_LENGTH: Final = 36


class Track(Protocol):
    """Something under way. Leaving its ``with`` block ends it, by an exception as failed."""

    @property
    def mlflow_run_id(self) -> str:
        """The MLflow run it is written to."""
        ...

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags; a tag that is there already is replaced."""
        ...

    def text(self, name: str, content: str) -> None:
        """Keep a text file with it, by its path there; one that is there already is replaced."""
        ...

    def finish(self, outcome: Outcome = "FINISHED") -> None:
        """End it. It may be opened again later."""
        ...

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it as what happened."""
        if kind is None:
            self.finish("FINISHED")
        else:
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED")


class StageTrack(Track, Protocol):
    """One stage of a pipeline."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step; what was told before is not told again."""
        ...

    def flush(self) -> None:
        """Send what is buffered."""
        ...


class PipelineTrack(Track, Protocol):
    """One run of a recipe."""

    def stage(
        self,
        name: str,
        *,
        parameters: Mapping[str, object] | None = None,
        inputs: Sequence[Input] = (),
        tags: Mapping[str, str] | None = None,
    ) -> StageTrack:
        """Begin a stage, or go on with one of this name.

        Args:
            name: Stage name, unique in the pipeline.
            parameters: Settings of this stage.
            inputs: Data sets and checkpoints that it reads.
            tags: Facts about it, such as the estimator.
        """
        ...


class Tracker(Protocol):
    """Where pipelines are tracked."""

    def pipeline(self, run_id: str, recipe: Recipe) -> PipelineTrack:
        """Begin a pipeline, or go on with the one of this run id."""
        ...


def open_tracker(home: Path) -> "MlflowTracker":
    """A tracker on the MLflow of a state folder; a store that is not there is created.

    Raises:
        StoreError: MLflow's store or server cannot be used.
    """
    client = open_client(home)
    with errors_named(home):
        return MlflowTracker(client, _experiment_id(client, home))


class MlflowTracker(Tracker):
    """Tracks pipelines in one MLflow experiment."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        """Write through ``client``, which ``open_client`` makes."""
        self._client = client
        self._experiment_id = experiment_id

    def pipeline(self, run_id: str, recipe: Recipe) -> "MlflowPipeline":
        """Begin a pipeline, or go on with the one of this run id."""
        tags = {
            "r1.pipeline": run_id,
            "r1.recipe": recipe.name,
            "r1.recipe_digest": recipe_digest(recipe),
            "r1.seed": str(recipe.seed),
        }
        run = _find_or_create(
            self._client, self._experiment_id, {**tags, "r1.stage": "pipeline"}, run_id
        )
        _log_missing_parameters(self._client, run, flat_parameters(recipe))
        return MlflowPipeline(self._client, run, tags)


class _MlflowTrack(Track):
    """What pipelines and stages have in common."""

    def __init__(self, client: "MlflowClient", run: "Run") -> None:
        self._client = client
        self._run_id: str = run.info.run_id

    @property
    def mlflow_run_id(self) -> str:
        return self._run_id

    def tag(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self._run_id, tags=[RunTag(k, v) for k, v in tags.items()])

    def text(self, name: str, content: str) -> None:
        self._client.log_text(self._run_id, content, name)

    def finish(self, outcome: Outcome = "FINISHED") -> None:
        self._client.set_terminated(self._run_id, outcome)


class MlflowPipeline(_MlflowTrack, PipelineTrack):
    """The parent run of a pipeline."""

    def __init__(self, client: "MlflowClient", run: "Run", tags: Mapping[str, str]) -> None:
        """Stages inherit ``tags``."""
        super().__init__(client, run)
        self._experiment_id = run.info.experiment_id
        self._tags = tags

    def stage(
        self,
        name: str,
        *,
        parameters: Mapping[str, object] | None = None,
        inputs: Sequence[Input] = (),
        tags: Mapping[str, str] | None = None,
    ) -> "MlflowStage":
        """Begin a stage, or go on with one of this name."""
        names = {**self._tags, "r1.stage": name, "mlflow.parentRunId": self.mlflow_run_id}
        run = _find_or_create(self._client, self._experiment_id, names, name)
        _log_missing_parameters(
            self._client, run, {key: str(value) for key, value in (parameters or {}).items()}
        )
        stage = MlflowStage(self._client, run)
        facts = dict(tags or {})
        for read in inputs:
            facts[f"r1.input.{read.stage}"] = read.digest
        if facts:
            stage.tag(facts)
        _log_inputs(self._client, stage.mlflow_run_id, inputs)
        return stage


class MlflowStage(_MlflowTrack, StageTrack):
    """The nested run of a stage."""

    def __init__(self, client: "MlflowClient", run: "Run") -> None:
        """What ``run`` holds already is not sent again."""
        super().__init__(client, run)
        self._last_step = {metric.key: metric.step for metric in run.data.to_proto().metrics}
        self._waiting: list[Metric] = []
        self._flushed_at = time.monotonic()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step; what was told before is not told again."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        for name, value in values.items():
            key = name.replace("@", "_at_")
            if step > self._last_step.get(key, -1):
                self._last_step[key] = step
                self._waiting.append(Metric(key, float(value), now_ms, step))
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        for batch in _batches(self._waiting, _METRICS_PER_BATCH):
            self._client.log_batch(self.mlflow_run_id, metrics=batch)
        self._waiting = []
        self._flushed_at = time.monotonic()

    def finish(self, outcome: Outcome = "FINISHED") -> None:
        """Send what is buffered and end the stage."""
        self.flush()
        super().finish(outcome)


def _batches(rows: Sequence[_Row], size: int) -> Iterable[Sequence[_Row]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _experiment_id(client: "MlflowClient", home: Path) -> str:
    """The experiment of all pipelines, created at the first one."""
    from mlflow.exceptions import MlflowException

    if client.get_experiment_by_name(EXPERIMENT) is None:
        # A server keeps artifacts where it was told to; a bare database has no such place.
        place = (home / "mlflow-artifacts").resolve().as_uri()
        location = None if has_server(tracking_uri(home)) else place
        try:
            client.create_experiment(EXPERIMENT, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None or found.lifecycle_stage != "active":
        raise StoreError(
            f"the MLflow experiment {EXPERIMENT} was deleted",
            "Restore it on MLflow's page, or with: mlflow experiments restore",
        )
    return str(found.experiment_id)


def _find_or_create(
    client: "MlflowClient", experiment_id: str, tags: Mapping[str, str], name: str
) -> "Run":
    """The run of a pipeline's stage; an ended one runs again."""
    query = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in ("r1.pipeline", "r1.stage"))
    found = client.search_runs(
        [experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"]
    )
    if not found:
        return client.create_run(experiment_id, tags=dict(tags), run_name=name)
    run = found[0]
    if run.info.status != "RUNNING":
        client.update_run(run.info.run_id, status="RUNNING")
    return run


def _log_missing_parameters(
    client: "MlflowClient", run: "Run", parameters: Mapping[str, str]
) -> None:
    """MLflow refuses to change a parameter, and a killed process may have told only some."""
    from mlflow.entities import Param

    missing = [Param(key, value) for key, value in parameters.items() if key not in run.data.params]
    for batch in _batches(missing, _PARAMETERS_PER_BATCH):
        client.log_batch(run.info.run_id, params=batch)


def _log_inputs(client: "MlflowClient", mlflow_run_id: str, inputs: Sequence[Input]) -> None:
    """Data sets and checkpoints as MLflow inputs; MLflow keeps equal ones once."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    datasets = []
    for read in inputs:
        rows = read.rows if isinstance(read, DatasetRef) else None
        dataset = Dataset(
            name=read.stage,
            digest=read.digest[:_DATASET_DIGEST_LENGTH],
            source_type="local",
            source=Path(read.path).resolve().as_uri(),
            profile=None if rows is None else json.dumps({"rows": rows}),
        )
        context = "checkpoint" if rows is None else "training"
        tags = [InputTag("mlflow.data.context", context), InputTag("r1.digest", read.digest)]
        datasets.append(DatasetInput(dataset, tags))
    if datasets:
        client.log_inputs(mlflow_run_id, datasets=datasets)
