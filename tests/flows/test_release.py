"""The gate in a pipeline: two candidates, a champion measured again, a person who says yes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.release import DECISIONS_FILE, requests_of
from flows.running import run_pipeline
from services.mlflow_store import open_client
from services.registry import open_registry
from services.store import store_url
from services.store.ledger import open_ledger
from services.store.opening import open_engine_to_read
from services.views import decisions, evaluation_ids

STUDENT = "r1-distill-tiny-student"
LENIENT = """
smoke = true
[maximum]
truncated = 1.0
[margin]
"pass@1" = 1.0
"language/consistency" = 1.0
format = 1.0
"""


@pytest.fixture(scope="module")
def lenient_home(home):
    """The micro recipe makes models of chance: their policy lets everything pass that loads."""
    folder = home / "policies"
    folder.mkdir(exist_ok=True)
    for name in ("r1", "r1-distill"):
        (folder / f"{name}.toml").write_text(LENIENT)
    yield home
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def report(micro, lenient_home):
    """With other problems to measure on than other tests, so that this gate is of its own."""
    other = micro.evaluation.model_copy(update={"seed": 11})
    return run_pipeline(micro.model_copy(update={"evaluation": other}), home=lenient_home)


@pytest.fixture
def registry(report, home):
    return open_registry(home, open_ledger(store_url({"R1_HOME": str(home)})))


def decided(report):
    return json.loads((Path(report.artifacts["gate"]) / DECISIONS_FILE).read_text())


def invoke(home, monkeypatch, *words):
    monkeypatch.setenv("R1_HOME", str(home))
    return CliRunner().invoke(app, [*words, "--home", str(home)])


def test_the_line_and_the_student_have_a_champion_each(report, registry, home):
    rows = {row["model"]: row for row in decided(report)}
    assert set(rows) == {"r1", STUDENT}
    for model, row in rows.items():
        assert row["promote"], row["reasons"]
        assert registry.head(model).champion == row["version"]
        assert "it loads and generates" in row["reasons"]
        assert row["policy"]["margin"]["pass@1"] == 1.0
    engine = open_engine_to_read(store_url({"R1_HOME": str(home)}))
    stored = {row.model: row.promoted for row in decisions(engine, report.run_id)}
    assert stored == {"r1": True, "distill": True}
    assert report.decision.count("is champion") == 2


def test_versions_say_where_they_came_from(report, registry, home):
    engine = open_engine_to_read(store_url({"R1_HOME": str(home)}))
    ids = evaluation_ids(engine, report.run_id)
    champion = registry.version("r1", registry.head("r1").champion)
    assert ids["r1"] in champion.evaluation_ids
    (dev3,) = [row for row in registry.versions("r1") if row.digest == report.digests["dev3"]]
    assert dev3.tags["data"] == report.digests["sft-set"]
    assert dev3.parents[1] == report.digests["sft-set"]
    assert dev3.tags["recipe"] == "micro"


def test_the_decision_is_in_mlflow(report, home):
    client = open_client(home)
    experiment = client.search_experiments()[0].experiment_id
    query = f"tags.`r1.pipeline` = '{report.run_id}' and tags.`r1.stage` = 'gate'"
    (run,) = client.search_runs([experiment], query)
    version = decided(report)[0]["version"]
    assert run.data.tags["r1.gate.r1"] == f"r1 version {version} is champion"
    names = [row.path for row in client.list_artifacts(run.info.run_id, "gate")]
    assert names == ["gate/r1-distill-tiny-student.md", "gate/r1.md"]


@pytest.fixture(scope="module")
def second(micro, lenient_home, report):
    """Another last stage, measured on other problems than the champion, and a person to ask."""
    policy = lenient_home / "policies" / "r1.toml"
    policy.write_text(LENIENT + "[approval]\nrequired = 'always'\n")
    changes = {
        "r1": micro.r1.model_copy(update={"steps": 1}),
        "evaluation": micro.evaluation.model_copy(update={"seed": 12}),
    }
    return run_pipeline(micro.model_copy(update=changes), home=lenient_home)


def test_a_champion_of_other_problems_is_measured_again_and_paired(second, registry):
    row = decided(second)[0]
    champion = registry.version("r1", registry.head("r1").champion)
    assert len(champion.evaluation_ids) >= 2
    paired = [check for check in row["checks"] if "lower end (95%, 4 problems)" in check["name"]]
    assert [check["name"].split()[0] for check in paired] == [
        "pass@1", "language/consistency", "format",
    ]  # fmt: skip


def test_what_passes_waits_for_a_person_and_a_yes_makes_it_champion(
    second, registry, home, monkeypatch
):
    row = decided(second)[0]
    (number,) = requests_of(Path(second.artifacts["gate"]))
    assert f"waits for approval {number}" in second.decision
    before = registry.head("r1")
    assert before.champion != row["version"]
    assert registry.aliases("r1")["candidate"] == row["version"]
    listed = invoke(home, monkeypatch, "approvals", "list", "--json")
    assert [request["id"] for request in json.loads(listed.stdout)] == [number]
    done = invoke(
        home, monkeypatch, "approvals", "approve", str(number), "--why", "fine", "--who", "ann"
    )
    assert done.exit_code == 0, done.output
    head = registry.head("r1")
    assert (head.champion, head.previous, head.who) == (row["version"], before.champion, "ann")
    assert registry.aliases("r1") == {"champion": head.champion, "previous": head.previous}
    history = json.loads(invoke(home, monkeypatch, "models", "--history", "--json").stdout)
    assert history[-1]["why"] == "approved by ann: fine"
    shown = invoke(home, monkeypatch, "models")
    assert "approved by ann: fine" in shown.stdout


def test_the_same_student_is_not_promoted_twice(second, registry):
    row = next(row for row in decided(second) if row["model"] == STUDENT)
    assert len(registry.history(STUDENT)) == 1
    assert row["promote"]
    assert row["version"] == registry.head(STUDENT).champion
