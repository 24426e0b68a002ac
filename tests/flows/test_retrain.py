"""Retraining as a flow: nothing due, done, refused, waiting, crashed, given up; one at a time."""

import json
from pathlib import Path

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

import flows.running
from flows import retrain
from flows.identity import STAGES
from flows.inheritance import TAKEN_OVER, Inheritance
from flows.running import run_pipeline
from services.artifacts import only_one
from services.config import Recipe
from services.errors import ArtifactError, ProblemError, RetrainError, StoreError
from services.recipes import load_recipe, run_id_of
from services.retraining.situation import POLICY_FILE, load_retrain_policy
from services.store import open_store, pool, retrainings, store_url
from services.store.opening import open_engine_to_write
from services.types import Problem
from services.views import alarms, run_overview
from tests.flows.conftest import MICRO

LENIENT = '[maximum]\ntruncated = 1.0\n[margin]\n"pass@1" = 1.0\nformat = 1.0\n'


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A state folder of its own whose policy is the micro recipe; Prefect's stays the session's."""
    monkeypatch.setenv("R1_HOME", str(tmp_path))
    monkeypatch.delenv("R1_STORE_URL", raising=False)
    (tmp_path / "policies").mkdir()
    recipe = json.dumps(["name='micro'", *MICRO])
    (tmp_path / POLICY_FILE).write_text(f"min_new_problems = 2\nchanges = {recipe}\n")
    return tmp_path


@pytest.fixture
def engine(place):
    engine = open_engine_to_write(store_url())
    yield engine
    engine.dispose()


class FakePipeline:
    """Writes down what a pipeline would, without training."""

    def __init__(self, monkeypatch) -> None:
        self.ran: list[Recipe] = []
        self.error: Exception | None = None
        self.promoted = True
        monkeypatch.setattr(flows.running, "run_pipeline", self)

    def __call__(self, recipe: Recipe, *, home: Path) -> None:
        self.ran.append(recipe)
        if self.error is not None:
            raise self.error
        run_id = run_id_of(recipe)
        store = open_store(store_url())
        store.begin_run(run_id, recipe_name=recipe.name, recipe_digest="d", seed=recipe.seed,
                        recipe_json=recipe.model_dump_json())  # fmt: skip
        for model in ("distill", "r1"):
            store.write_decision(run_id, model, candidate_digest="c", champion_digest="",
                                 promoted=self.promoted, reasons=[f"{model} was looked at"],
                                 note="")  # fmt: skip
        store.close()


@pytest.fixture
def pipeline(monkeypatch, place, home):
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield FakePipeline(monkeypatch)


def test_the_first_one_is_the_whole_recipe_and_is_written_down(place, engine, pipeline):
    assert retrain.examine(place).due.start == "zero"
    outcome = retrain.Outcome.model_validate(retrain.retrain())
    assert (outcome.state, outcome.start) == ("promoted", "zero")
    assert outcome.said == "r1 was looked at", "of the line, not of the student"
    (recipe,) = pipeline.ran
    assert (recipe.name, recipe.seed) == ("micro-retrain-1", 1), "its problems are other ones"
    (row,) = retrainings.retrainings(engine)
    assert (row.state, row.attempts, row.run_id) == ("promoted", 1, run_id_of(recipe))
    assert row.ended_at is not None


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), StoreError("MLflow is away", "Start it")], ids=str
)
def test_a_crash_goes_on_with_the_recipe_it_began_with(error, place, engine, pipeline):
    pipeline.error = error
    with pytest.raises(type(error)):
        retrain.retrain_if_due(place)
    (place / POLICY_FILE).write_text("changes = ['seed=77']\n")
    pipeline.error = None
    assert retrain.retrain_if_due(place).state == "promoted"
    first, second = pipeline.ran
    assert first == second, "not what policy and pool say by now"
    (row,) = retrainings.retrainings(engine)
    assert (row.attempts, row.state) == (2, "promoted")


def test_what_crashes_again_and_again_is_given_up_with_an_alarm(place, engine, pipeline):
    pipeline.error = RuntimeError("out of memory")
    for _ in range(3):
        with pytest.raises(RuntimeError):
            retrain.retrain_if_due(place)
    assert retrain.retrain_if_due(place).state == "given up"
    assert len(pipeline.ran) == 3
    (row,) = retrainings.retrainings(engine)
    assert row.state == "failed"
    assert [alarm.name for alarm in alarms(engine)] == ["retraining_given_up"]


def test_what_a_user_must_mend_ends_it_at_once(place, engine, pipeline):
    pipeline.error = ProblemError("there is no such file", "Give one")
    outcome = retrain.retrain_if_due(place)
    assert (outcome.state, outcome.said) == ("failed", "there is no such file. Give one")
    assert [row.state for row in retrainings.retrainings(engine)] == ["failed"]
    assert [alarm.name for alarm in alarms(engine)] == ["retraining_failed"]


def test_one_at_a_time(place, engine, pipeline):
    with only_one(place / "work" / "retraining.lock"):
        outcome = retrain.retrain_if_due(place)
    assert (outcome.state, outcome.reasons) == ("busy", [retrain.BUSY])
    assert pipeline.ran == []
    begun = {"run_id": "a", "start": "zero", "reasons": [], "recipe": "{}", "champion": None,
             "base": "", "student": ""}  # fmt: skip
    retrainings.begin(engine, **begun)
    with pytest.raises(RetrainError, match="another retraining is running"):
        retrainings.begin(engine, **begun)


def test_new_problems_go_into_a_snapshot_that_the_recipe_names(place, engine, pipeline):
    pipeline.promoted = False
    problems = [Problem(f"p{n}", "exact", f"say {n} please", str(n), "en") for n in range(2)]
    pool.add(engine, problems, origin="new.jsonl", who="anna")
    assert retrain.retrain_if_due(place).state == "refused"
    (recipe,) = pipeline.ran
    assert (place / "pools" / f"{recipe.problems.pool}.jsonl").is_file()


def test_a_policy_with_a_mistake_is_named(place):
    (place / POLICY_FILE).write_text("min_problems = 3\n")
    with pytest.raises(
        RetrainError, match=r"retraining\.toml: min_problems: .*Its keys are recipe"
    ):
        load_retrain_policy(place)


def test_every_start_names_stages_that_there_are():
    for start, taken in TAKEN_OVER.items():
        assert start in STAGES
        assert taken <= set(STAGES)
        assert start not in taken
        assert not {"evaluate", "gate", "export"} & taken
    lost = Inheritance("tiny-s0-00000000", "r1", {})
    with pytest.raises(ArtifactError, match="no finished stage zero any more"):
        lost.taken_over("zero")


def test_a_warm_start_takes_over_what_the_champion_has(micro, home):
    """For real: the last stage goes on from the champion, and nothing before it runs again."""
    (home / "policies").mkdir(exist_ok=True)
    (home / "policies" / "r1.toml").write_text(LENIENT)
    whole = run_pipeline(micro, home=home)
    warm = load_recipe("tiny", ["name='warm'", *MICRO, "seed=1", "retrain.start='r1'",
                                f"retrain.champion='{whole.run_id}'"])  # fmt: skip
    report = run_pipeline(warm, home=home)
    reused = {stage for stage, how in report.outcomes.items() if how == "reused"}
    assert reused == TAKEN_OVER["r1"]
    assert all(report.digests[stage] == whole.digests[stage] for stage in reused)
    assert report.digests["r1"] != whole.digests["r1"]
    manifest = json.loads((Path(report.artifacts["r1"]) / "manifest.json").read_text())
    assert manifest["parents"][0] == whole.digests["r1"]
    made = {"r1", "on-policy"}  # which has r1 for its teacher
    assert set(report.table) == {"base", "student-base"} | made, "only what it made is measured"
    engine = open_engine_to_write(store_url({"R1_HOME": str(home)}))
    stages = {stage.name: stage for stage in run_overview(engine, report.run_id).stages}
    engine.dispose()
    assert stages["dev2"].source_run == whole.run_id
    assert run_pipeline(warm, home=home).nothing_to_do
