"""Tracking: what MLflow holds after runs, killed runs and runs that say things twice."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from services.config import Recipe
from services.errors import StoreError
from services.mlflow_store import open_client, tracking_uri
from services.recipes import flat_parameters, recipe_digest
from services.tracking import open_tracker
from services.types import CheckpointRef, DatasetRef

# MLflow's tables still use a loader that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

RECIPE = Recipe(name="tiny", seed=3)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One state folder for all tests here: MLflow takes seconds to make its tables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        folder = tmp_path_factory.mktemp("state") / "r1"
        open_client(folder)
    return folder


@pytest.fixture
def client(home):
    return MlflowClient(tracking_uri=tracking_uri(home))


def points(client, stage, key):
    return [
        (metric.step, metric.value)
        for metric in client.get_metric_history(stage.mlflow_run_id, key)
    ]


def test_a_pipeline_is_a_parent_run_with_the_resolved_recipe(home, client):
    with open_tracker(home).pipeline("tiny-s3-parent", RECIPE) as pipeline:
        assert client.get_run(pipeline.mlflow_run_id).info.status == "RUNNING"
    run = client.get_run(pipeline.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tiny-s3-parent"
    assert run.data.params == flat_parameters(RECIPE)
    assert run.data.tags["r1.recipe_digest"] == recipe_digest(RECIPE)
    assert run.data.tags["r1.seed"] == "3"


def test_a_stage_is_a_nested_run_with_parameters_inputs_and_curves(home, client):
    rows = DatasetRef("cold-start", "/data/cold", "d" * 64, rows=12)
    start = CheckpointRef("zero", "/models/zero", "c" * 64)
    with open_tracker(home).pipeline("tiny-s3-nested", RECIPE) as pipeline:
        with pipeline.stage(
            "dev1",
            parameters={"epochs": 2.0},
            inputs=[start, rows],
            tags={"estimator": "grpo"},
        ) as stage:
            for step in range(3):
                stage.log(step, {"loss": 1.0 / (step + 1), "pass@1/level_3": 0.5})
        run = client.get_run(stage.mlflow_run_id)
    assert run.data.tags["mlflow.parentRunId"] == pipeline.mlflow_run_id
    assert run.data.tags["r1.stage"] == run.info.run_name == "dev1"
    assert run.data.tags["r1.pipeline"] == "tiny-s3-nested"
    assert run.data.tags["r1.input.zero"] == "c" * 64
    assert run.data.tags["estimator"] == "grpo"
    assert run.data.params == {"epochs": "2.0"}
    assert points(client, stage, "loss") == [(0, 1.0), (1, 0.5), (2, pytest.approx(1 / 3))]
    assert points(client, stage, "pass_at_1/level_3")[-1] == (2, 0.5)
    contexts = {
        read.dataset.name: (read.tags[0].value, read.tags[1].value, read.dataset.profile)
        for read in run.inputs.dataset_inputs
    }
    assert contexts == {
        "cold-start": ("training", "d" * 64, '{"rows": 12}'),
        "zero": ("checkpoint", "c" * 64, None),
    }


def test_going_on_continues_the_same_runs_and_tells_nothing_twice(home, client):
    inputs = [DatasetRef("cold-start", "/data/cold", "e" * 64, rows=1)]
    first = open_tracker(home).pipeline("tiny-s3-again", RECIPE)
    killed = first.stage("zero", parameters={"steps": 9}, inputs=inputs)
    for step in range(4):
        killed.log(step, {"loss": float(step), "kl": 0.0})
    killed.flush()
    killed.log(4, {"loss": 99.0})

    second = open_tracker(home).pipeline("tiny-s3-again", RECIPE)
    stage = second.stage("zero", parameters={"steps": 9}, inputs=inputs)
    assert second.mlflow_run_id == first.mlflow_run_id
    assert stage.mlflow_run_id == killed.mlflow_run_id
    for step in range(2, 6):
        stage.log(step, {"loss": 10.0 + step, "kl": 0.0, "late": 1.0})
    stage.finish()
    # Steps 2 and 3 were stored before; 4 was lost with the process and is new.
    assert points(client, stage, "loss") == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 14), (5, 15)]
    assert [step for step, _ in points(client, stage, "late")] == [2, 3, 4, 5]
    assert len(client.get_run(stage.mlflow_run_id).inputs.dataset_inputs) == 1


def test_an_ended_stage_runs_again_when_it_goes_on(home, client):
    pipeline = open_tracker(home).pipeline("tiny-s3-ended", RECIPE)
    with pytest.raises(ZeroDivisionError), pipeline.stage("zero") as stage:
        stage.log(0, {"loss": 1 / 0})
    assert client.get_run(stage.mlflow_run_id).info.status == "FAILED"
    stage = pipeline.stage("zero")
    assert client.get_run(stage.mlflow_run_id).info.status == "RUNNING"
    with pytest.raises(KeyboardInterrupt), stage:
        raise KeyboardInterrupt
    assert client.get_run(stage.mlflow_run_id).info.status == "KILLED"


def test_missing_parameters_are_told_by_the_next_process(home, client):
    tracker = open_tracker(home)
    pipeline = tracker.pipeline("tiny-s3-partly", RECIPE)
    pipeline.stage("zero", parameters={"steps": 9})
    stage = pipeline.stage("zero", parameters={"steps": 8, "group_size": 4})
    told = client.get_run(stage.mlflow_run_id).data.params
    assert told == {"steps": "9", "group_size": "4"}


def test_more_numbers_than_mlflow_takes_at_once(home, client):
    stage = open_tracker(home).pipeline("tiny-s3-many", RECIPE).stage("zero")
    for step in range(60):
        stage.log(step, {f"m{number}": float(step) for number in range(20)})
    stage.finish()
    assert points(client, stage, "m19") == [(step, step) for step in range(60)]


def test_quiet_and_only_imported_when_opened(tmp_path):
    script = """
import sys
import services.tracking, services.registry
assert "mlflow" not in sys.modules, "mlflow came with the import"
from pathlib import Path
services.tracking.open_tracker(Path(sys.argv[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "r1"],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == done.stderr == ""
    assert [path.name for path in (tmp_path / "r1").iterdir()] == ["mlflow.db"]


def test_killed_while_the_tables_are_made_leaves_nothing_in_the_way(tmp_path):
    script = """
import os, sys
from pathlib import Path
from mlflow.store.db import utils
import services.mlflow_store
whole = utils._initialize_tables
def killed(engine):
    whole(engine)
    os.kill(os.getpid(), 9)
utils._initialize_tables = killed
services.mlflow_store.open_client(Path(sys.argv[1]))
"""
    killed = subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    open_tracker(tmp_path)


def test_a_database_of_another_schema_is_named_with_its_mend(home, tmp_path):
    shutil.copy(home / "mlflow.db", tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as old:
        old.execute("UPDATE alembic_version SET version_num = '728d730b5ebd'")
    with pytest.raises(StoreError, match="mlflow db upgrade"):
        open_client(tmp_path)


def test_a_server_that_is_not_there_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    with pytest.raises(StoreError, match="Start the MLflow server") as caught:
        open_tracker(tmp_path)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="R1_HOME"):
        open_client(tmp_path / "file")
