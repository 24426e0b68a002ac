"""The pipeline as a whole: order, lineage, records, no-op, partial runs, refusal, resumption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoModelForSequenceClassification

from flows.identity import STAGES
from flows.report import PipelineReport
from flows.running import run_pipeline
from services.artifacts import read_manifest, verify_folder
from services.config import Recipe
from services.config_guards import Guards
from services.errors import ArtifactError, GuardError, ProblemError, RecipeError
from services.recipes import run_id_of
from services.registry import open_registry
from services.store.ledger import open_ledger
from services.store.opening import open_engine_to_read, store_url
from services.views import alarms, answers_by_step, list_runs, repeated_questions, run_overview
from tests.flows.conftest import MICRO


@pytest.fixture(scope="module")
def report(micro: Recipe, home: Path) -> PipelineReport:
    return run_pipeline(micro, home=home)


def parents(report: PipelineReport, stage: str) -> list[str]:
    manifest = read_manifest(Path(report.artifacts[stage]))
    assert manifest is not None
    return list(manifest["parents"])


def test_every_stage_ran_once_in_order(report):
    assert list(report.outcomes) == list(STAGES)
    assert set(report.outcomes.values()) == {"finished"}
    for folder in report.artifacts.values():
        verify_folder(Path(folder))


def test_lineage_is_that_of_the_paper(report):
    digests = report.digests
    assert digests["zero"] in parents(report, "cold-start")
    assert digests["cold-start"] in parents(report, "dev1")
    assert parents(report, "dev2") == [digests["dev1"]]
    assert digests["sft-set"] in parents(report, "dev3")
    assert digests["dev2"] not in parents(report, "dev3"), "dev3 restarts from the base"
    assert parents(report, "dev3")[0] == parents(report, "dev1")[0] == parents(report, "zero")[0]
    assert parents(report, "r1") == [digests["dev3"], digests["preference"]]
    assert parents(report, "on-policy") == [digests["distill"], digests["r1"]]
    assert parents(report, "distill")[0] == parents(report, "student-rl")[0]


def test_the_store_knows_the_run(report, home):
    engine = open_engine_to_read(store_url({"R1_HOME": str(home)}))
    assert report.run_id in [run.id for run in list_runs(engine)]
    stages = {stage.name: stage for stage in run_overview(engine, report.run_id).stages}
    assert stages["zero"].state == "finished"
    assert stages["zero"].last_step == stages["zero"].total_steps == 3
    asked = repeated_questions(engine, report.run_id, "zero")
    assert [question.times for question in asked] == [3, 3], "held-out ones, at every step"
    answers = answers_by_step(engine, report.run_id, "zero", asked[0].problem)
    assert [(one.step, one.samples) for one in answers] == [(1, 2), (2, 2), (3, 2)]


def test_the_table_has_every_checkpoint(report):
    assert list(report.table) == [
        "base", "r1-zero", "dev1", "dev2", "dev3", "r1", "student-base", "distill", "on-policy",
        "student-rl",
    ]  # fmt: skip
    for values in report.table.values():
        assert {"pass@1", "cons@2", "language/consistency", "helpfulness", "safety"} <= set(values)


@pytest.mark.parametrize("aspect", ["helpfulness", "safety"])
def test_preference_models_are_versions_with_their_evidence(report, home, aspect):
    registry = open_registry(home, open_ledger(store_url({"R1_HOME": str(home)})))
    [version] = registry.versions(f"r1-{aspect}")
    assert version.tags["pipeline"] == report.run_id
    assert version.tags["parents"].split(",") == parents(report, "preference")
    evaluation = json.loads(version.tags["evaluation"])
    assert 0.0 <= evaluation["held_out_accuracy"] <= 1.0
    assert evaluation["held_out_examples"] > 0
    folder = registry.resolve(f"models:/r1-{aspect}/{version.number}")
    model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    assert model.num_labels == 1


def test_a_finished_pipeline_has_nothing_to_do(report, micro, home):
    again = run_pipeline(micro, home=home)
    assert again.nothing_to_do
    assert again.digests == report.digests


def test_a_recipe_that_shares_stages_reuses_them(report, micro, home):
    other = micro.model_copy(update={"dev1": micro.dev1.model_copy(update={"learning_rate": 1e-5})})
    partial = run_pipeline(other, home=home, until="dev1")
    assert partial.outcomes == {"zero": "reused", "cold-start": "reused", "dev1": "finished"}
    assert partial.digests["zero"] == report.digests["zero"]
    assert partial.digests["dev1"] != report.digests["dev1"]


def test_from_runs_a_stage_again_with_the_same_result(report, micro, home):
    again = run_pipeline(micro, home=home, start="cold-start", until="dev1")
    assert again.outcomes == {"zero": "reused", "cold-start": "finished", "dev1": "finished"}
    assert again.digests["dev1"] == report.digests["dev1"]


def test_unknown_stage_and_missing_file_are_refused(micro, home):
    with pytest.raises(RecipeError, match="no stage 'dev9'"):
        run_pipeline(micro, home=home, until="dev9")
    lost = micro.model_copy(
        update={
            "problems": micro.problems.model_copy(
                update={"source": "jsonl", "train_file": "nowhere.jsonl"}
            )
        }
    )
    with pytest.raises(ProblemError, match=r"nowhere\.jsonl"):
        run_pipeline(lost, home=home)
    assert not list((home / "artifacts").glob(".*")), "nothing half-written"


def test_a_guard_pauses_a_stage_and_running_it_again_goes_on(micro, home):
    bound = {"mismatch": 1e-30, "window": 1, "policies": {"mismatch": "pause"}}
    zero = micro.zero.model_copy(update={"guards": Guards.model_validate(bound), "save_every": 50})
    watched = micro.model_copy(update={"zero": zero})
    with pytest.raises(GuardError, match="sampler and trainer differ") as stopped:
        run_pipeline(watched, home=home, until="zero")
    assert "Run the same command again" in stopped.value.mend
    engine = open_engine_to_read(store_url({"R1_HOME": str(home)}))
    (alarm,) = alarms(engine, run_id=run_id_of(watched))
    assert (alarm.source, alarm.name, alarm.action) == ("guard", "mismatch", "pause")
    assert (alarm.stage, alarm.step) == ("zero", 2)
    assert alarm.value > alarm.bound == 1e-30
    done = run_pipeline(watched, home=home, until="zero")
    assert done.outcomes == {"zero": "finished"}


def test_a_run_that_the_disk_cannot_hold_is_refused_before_it_starts(micro, home, monkeypatch):
    free = SimpleNamespace(total=10**9, used=0, free=10**6)
    monkeypatch.setattr("services.training.disk.shutil.disk_usage", lambda _: free)
    other = micro.model_copy(update={"seed": 5})
    with pytest.raises(ArtifactError, match=r"this run will take up to \d+ MB .* 1 MB are free"):
        run_pipeline(other, home=home, until="zero")
    engine = open_engine_to_read(store_url({"R1_HOME": str(home)}))
    assert run_overview(engine, run_id_of(other)).stages == []


def test_a_killed_run_resumes_to_the_same_digests(report, tmp_path):
    """``kill -9`` in the middle of the first stage and once more later, then to the end."""
    command = [sys.executable, "-m", "flows.cli", "run", "--json", "--home", str(tmp_path)]
    command += ["--until", "dev1", *(f"--set={change}" for change in ("name='micro'", *MICRO))]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "R1_"))}
    environment["MLFLOW_TRACKING_URI"] = ""
    killed = 0
    for wanted in ("work/zero-*/checkpoint-1/complete", "artifacts/cold-start-*"):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not list(tmp_path.glob(wanted)):
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed == 2
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    resumed = json.loads(done.stdout)
    for stage in ("zero", "cold-start", "dev1"):
        assert resumed["digests"][stage] == report.digests[stage]
    assert resumed["outcomes"]["zero"] == "reused"
    engine = open_engine_to_read(store_url({"R1_HOME": str(tmp_path)}))
    asked = repeated_questions(engine, resumed["run_id"], "zero")
    assert [question.times for question in asked] == [3, 3]


def test_run_ids_follow_recipe_and_seed(micro):
    other = micro.model_copy(update={"seed": 1})
    assert run_id_of(micro) != run_id_of(other)
    assert run_id_of(other).startswith("micro-s1-")
