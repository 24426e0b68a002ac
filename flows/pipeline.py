"""Running stages: each one a Prefect flow run around one cached task, tracked and resumable.

A stage is known by its key, the digest of what decides its result: its settings, its inputs, the
seed. The key names the artifact folder and is Prefect's cache key, so a killed pipeline goes on for
free and another recipe that shares a stage reuses it. Stage bodies live in ``stages``; they are
handed a ``StageRun`` and know nothing of Prefect.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from pydantic import BaseModel

from flows.identity import STAGES
from flows.inheritance import inheritance
from flows.progress import StageProgress
from services.artifacts import digest_of, new_folder, only_one, read_manifest, remove_torn
from services.clock import WorkClock
from services.config import Recipe
from services.errors import R1Error
from services.launch.command import CrashError
from services.pool import open_pool
from services.recipes import recipe_digest, run_id_of
from services.store import StageKind, Store, open_store, store_url
from services.store.alarms import Alarm, AlarmBook, open_alarms
from services.tracking import PipelineTrack, StageTrack, open_tracker
from services.training.guards import Finding
from services.types import CheckpointRef, DatasetRef, EvaluationSample, Metrics, Rollout

STAGE_VERSION = 1
"""Raised when a stage's code changes what it computes from the same settings."""

Ref = CheckpointRef | DatasetRef
AnyRef = TypeVar("AnyRef", CheckpointRef, DatasetRef)


class UntilReached(Exception):
    """The stage of ``--until`` is finished."""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What a stage is, before it runs."""

    name: str
    kind: StageKind
    settings: BaseModel
    inputs: Mapping[str, Ref]
    """Named references; their digests are part of the key."""
    total_steps: int = 1
    save_every: int = 25
    """Steps between resumable checkpoints."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Shown beside its curves, for instance the estimator."""


@dataclass(slots=True)
class StageRun:
    """What a stage body works with."""

    plan: StagePlan
    key: str
    output: Path
    """Temporary folder that becomes the artifact when the body returns."""
    work: Path
    """Resumable state; outlives a crash, goes when the stage is done."""
    pipeline: "Pipeline"
    track: StageTrack
    facts: dict[str, Any]
    """The manifest to be; bodies add what should be seen on the stage's Prefect artifact."""

    def resumed(self, step: int) -> None:
        """Forget what was recorded after ``step``; it is done again."""
        self.pipeline.store.truncate_steps(self.pipeline.run_id, self.plan.name, step)

    def step(
        self,
        metrics: Metrics,
        rollouts: Sequence[Rollout] = (),
        held_out: Sequence[EvaluationSample] = (),
    ) -> None:
        """Record one training step everywhere it is looked for."""
        run = self.pipeline
        run.store.write_step(run.run_id, self.plan.name, metrics, rollouts, held_out)
        self.track.log(metrics.step, metrics.values)
        if metrics.step % self.plan.save_every == 0:
            self.track.flush()  # a checkpoint follows, and nothing before it is told again
        run.progress.step(metrics.step, metrics.values)

    def alarm(self, step: int, finding: Finding) -> None:
        """A guard of the stage has tripped; whatever it does, somebody should know."""
        stage, policy = self.plan.name, finding.policy
        assert policy != "off"
        self.pipeline.alarms.raise_alarm(
            Alarm(
                source="guard",
                name=finding.guard,
                action=policy,
                message=finding.what,
                run_id=self.pipeline.run_id,
                stage=stage,
                step=step,
                value=finding.value if isfinite(finding.value) else None,
                bound=finding.bound,
            )
        )
        self.pipeline.progress.say(f"{stage}, step {step}: {finding.what} ({policy})")


class Pipeline:
    """One run of one recipe: its identity, its services, its finished stages."""

    def __init__(
        self,
        recipe: Recipe,
        home: Path,
        store: Store,
        track: PipelineTrack,
        progress: StageProgress,
        alarms: AlarmBook,
        *,
        until: str | None,
        start: str | None,
    ) -> None:
        self.recipe = recipe
        self.run_id = run_id_of(recipe)
        self.home = home
        self.store = store
        self.track = track
        self.progress = progress
        self.alarms = alarms
        self.clock = WorkClock()
        self.until = until
        self.start = start
        self.inherited = inheritance(recipe.retrain, store_url())
        self.outcomes: dict[str, str] = {}
        """How each stage ended: ``finished`` or ``reused``."""
        self.folders: dict[str, Path] = {}
        self.digests: dict[str, str] = {}
        self.measured: dict[str, dict[str, float]] = {}
        self.decision = ""
        self.exported = ""

    def key_of(self, plan: StagePlan) -> str:
        """Digest of everything that decides the stage's result."""
        return digest_of(
            {
                "stage": plan.name,
                "version": STAGE_VERSION,
                "seed": self.recipe.seed,
                "settings": plan.settings.model_dump(mode="json"),
                "problems": self.recipe.problems.model_dump(mode="json"),
                **self._engines(plan),
                "inputs": {name: ref.digest for name, ref in plan.inputs.items()},
            }
        )

    def _engines(self, plan: StagePlan) -> dict[str, str]:
        """The engine that samples in a stage, where it is not ours: it draws other samples."""
        engine = self.recipe.engine
        sampler = {"rl": engine.rollouts, "sft": "local"}.get(plan.kind, engine.sampler)
        return {} if sampler == "local" else {"sampler": sampler}

    def folder_of(self, plan: StagePlan) -> Path:
        """Where the stage's artifact lies when it is finished."""
        return self.home / "artifacts" / f"{plan.name}-{self.key_of(plan)[:12]}"

    def must_redo(self, stage: str) -> bool:
        """Whether ``--from`` asks to run the stage again though its result is there."""
        return self.start is not None and STAGES.index(stage) >= STAGES.index(self.start)

    def checkpoint(self, plan: StagePlan, body: Callable[[StageRun], None]) -> CheckpointRef:
        """Run a stage that makes a model."""
        folder, manifest = self._run(plan, body)
        parents = tuple(manifest["parents"])
        return CheckpointRef(plan.name, str(folder), manifest["digest"], parents)

    def dataset(self, plan: StagePlan, body: Callable[[StageRun], None]) -> DatasetRef:
        """Run a stage that makes a data set; its body puts ``rows`` into the facts."""
        folder, manifest = self._run(plan, body)
        parents = tuple(manifest["parents"])
        return DatasetRef(plan.name, str(folder), manifest["digest"], manifest["rows"], parents)

    def _run(
        self, plan: StagePlan, body: Callable[[StageRun], None]
    ) -> tuple[Path, dict[str, Any]]:
        taken = self.inherited.taken_over(plan.name)
        if taken is not None:
            folder, manifest = taken.folder, {**taken.manifest, "reused": True}
            self._take_over(plan, taken.key)
        else:
            folder = self.folder_of(plan)
            if self.must_redo(plan.name) and folder.exists() and plan.name not in self.outcomes:
                shutil.rmtree(folder)
            manifest = run_as_flow(self, plan, folder, body)
        self.outcomes[plan.name] = "reused" if manifest.pop("reused") else "finished"
        self.folders[plan.name] = folder
        self.digests[plan.name] = manifest["digest"]
        if plan.name == self.until:
            raise UntilReached
        return folder, manifest

    def _take_over(self, plan: StagePlan, key: str) -> None:
        """Say in the store that a stage is the champion's."""
        source = self.inherited.run
        self.store.reuse_stage(self.run_id, plan.name, source_run=source, key=key)
        self.progress.begin(plan.name, plan.total_steps)
        self.progress.finish("the champion's")


def _parents(plan: StagePlan) -> tuple[str, ...]:
    return tuple(ref.digest for ref in plan.inputs.values())


def run_as_flow(
    pipeline: Pipeline, plan: StagePlan, folder: Path, body: Callable[[StageRun], None]
) -> dict[str, Any]:
    """One stage as a Prefect flow run with one task inside, cached by the stage's key.

    The task's result is the manifest. A cached result whose folder has gone does not count.
    """
    key = pipeline.key_of(plan)
    ran = False

    @task(
        name=plan.name,
        retries=1,
        retry_condition_fn=_worth_a_retry,
        cache_key_fn=lambda *_: key if read_manifest(folder) else None,
        persist_result=True,
        result_serializer="json",
    )
    def make(stage: str, key: str) -> dict[str, Any]:
        nonlocal ran
        if read_manifest(folder) is None:
            ran = True
            execute(pipeline, plan, key, folder, body)
        manifest = read_manifest(folder)
        assert manifest is not None
        return manifest

    @flow(
        name=f"r1-{plan.name}",
        flow_run_name=f"{pipeline.run_id}/{plan.name}",
        validate_parameters=False,
    )
    def stage_flow(stage: str, key: str) -> dict[str, Any]:
        manifest = make(stage, key)
        create_table_artifact(
            key=f"r1-{plan.name}",
            table=[{"name": name, "value": str(value)} for name, value in manifest.items()],
            description=f"Result of stage {plan.name} of {pipeline.run_id}",
        )
        return manifest

    manifest = dict(stage_flow(plan.name, key))
    if not ran:
        _record_reuse(pipeline, plan, key)
    return {**manifest, "reused": not ran}


def _worth_a_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Errors a user must mend come back the same; a crash may not."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, CrashError) or not isinstance(error, R1Error | AssertionError)


def execute(
    pipeline: Pipeline, plan: StagePlan, key: str, folder: Path, body: Callable[[StageRun], None]
) -> None:
    """Run a stage's body with its records open, and make its folder visible at the end."""
    started = time.perf_counter()
    store, run_id = pipeline.store, pipeline.run_id
    store.begin_stage(
        run_id,
        plan.name,
        kind=plan.kind,
        key=key,
        inputs={name: ref.digest for name, ref in plan.inputs.items()},
        total_steps=plan.total_steps,
        attributes=plan.attributes,
    )
    pipeline.progress.begin(plan.name, plan.total_steps)
    work = pipeline.home / "work" / f"{plan.name}-{key[:12]}"
    facts: dict[str, Any] = {"stage": plan.name, "key": key, "parents": list(_parents(plan))}
    track = pipeline.track.stage(
        plan.name,
        parameters=plan.settings.model_dump(mode="json"),
        inputs=list(plan.inputs.values()),
        tags={"key": key, **plan.attributes},
    )
    facts["mlflow_run_id"] = track.mlflow_run_id
    try:
        with only_one(work.with_suffix(".lock")):
            remove_torn(folder)
            with track, new_folder(folder, facts) as output:
                body(StageRun(plan, key, output, work, pipeline, track, facts))
    except BaseException:
        store.end_stage(run_id, plan.name, "failed", seconds=time.perf_counter() - started)
        raise
    shutil.rmtree(work, ignore_errors=True)
    manifest = read_manifest(folder)
    assert manifest is not None
    seconds = time.perf_counter() - started
    store.end_stage(
        run_id,
        plan.name,
        "finished",
        output_path=str(folder),
        output_digest=manifest["digest"],
        seconds=seconds,
    )
    pipeline.progress.finish(f"done in {seconds:.0f} s")


def _record_reuse(pipeline: Pipeline, plan: StagePlan, key: str) -> None:
    """Say in the store where a stage's curves are when another run made them."""
    source = pipeline.store.finished_stage(key)
    if source is not None and source.run_id != pipeline.run_id:
        pipeline.store.reuse_stage(pipeline.run_id, plan.name, source_run=source.run_id, key=key)
    pipeline.progress.begin(plan.name, plan.total_steps)
    pipeline.progress.finish("already done")


@contextmanager
def open_pipeline(
    recipe: Recipe, home: Path, progress: StageProgress, *, until: str | None, start: str | None
) -> Iterator[Pipeline]:
    """Open the services of a run, and close its records however it ends."""
    run_id = run_id_of(recipe)
    store = open_store(store_url())
    alarms = open_alarms(store_url())
    store.begin_run(
        run_id,
        recipe_name=recipe.name,
        recipe_digest=recipe_digest(recipe),
        seed=recipe.seed,
        recipe_json=recipe.model_dump_json(),
    )
    try:
        if recipe.problems.pool:
            open_pool(store_url()).mark_used(recipe, home, run_id)
        with open_tracker(home).pipeline(run_id, recipe) as track:
            yield Pipeline(recipe, home, store, track, progress, alarms, until=until, start=start)
    except BaseException as error:
        store.end_run(run_id, "failed", summary=f"{type(error).__name__}: {error}")
        raise
    else:
        store.end_run(run_id, "finished")
    finally:
        alarms.close()
        store.close()
