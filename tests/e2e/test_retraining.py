"""The platform by itself: schedules, retraining, gate, promotion, refusal, rollback, crashes.

Everything is real and accelerated: servers, a schedule of seconds, a recipe of seconds.
"""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from services.tasks.countdown import is_held_out
from tests.e2e.platform_run import Platform, listener, running, wait_for
from tests.flows.conftest import MICRO

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

EVERY_SECONDS = "15"
ENOUGH = 4
BAD = "r1.learning_rate=0.5"
"""Weights of such a step are noise: what they say is in no format."""
LENIENT = """
[maximum]
truncated = 1.0
[margin]
"pass@1" = 1.0
"language/consistency" = 1.0
format = 0.5
"""


def write_policies(home: Path, *changes: str) -> None:
    """Retrain on few new problems; the gate is about format, which few samples can show."""
    folder = home / "policies"
    folder.mkdir(exist_ok=True)
    recipe = ["name='micro'", *MICRO, "gate.min_format=0.5", *changes]
    text = f"min_new_problems = {ENOUGH}\nchanges = {json.dumps(recipe)}\n"
    (folder / "retraining.toml").write_text(text)
    for model in ("r1", "r1-distill"):
        (folder / f"{model}.toml").write_text(LENIENT)


def new_problems(folder: Path, first: int) -> Path:
    """Puzzles that no split holds out and no other call gives."""
    free = [(a, b, c) for a in range(1, 10) for b in range(1, 10) for c in range(1, 10)
            if not is_held_out((a, b, c))]  # fmt: skip
    path = folder / f"new-{first}.jsonl"
    rows = []
    for a, b, c in free[first * 40 : first * 40 + ENOUGH]:
        gold = {"numbers": [a, b, c], "target": a + b - c, "ordered": True, "operators": "+-"}
        question = f"use {a} , {b} and {c} in this order to make {a + b - c} ."
        rows.append(json.dumps({"question": question, "answer": json.dumps(gold),
                                "kind": "countdown", "language": "en", "level": 3}))  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    return path


def ended(platform: Platform, number: int):
    """Wait until the retraining of a number has ended."""

    def found():
        rows = platform.retrainings()
        return (
            rows[number - 1] if len(rows) >= number and rows[number - 1][1] != "running" else None
        )

    return wait_for(found, f"the end of retraining {number}")


@pytest.fixture
def home(tmp_path):
    write_policies(tmp_path)
    return tmp_path


def test_the_story(home, tmp_path):
    with (
        listener() as (address, told),
        running(home, "--retrain-every", EVERY_SECONDS) as platform,
    ):
        platform.r1("webhooks", "add", address, "--model", "r1")
        # Nobody has trained anything: the schedule does, the whole recipe.
        start, state, outcome, _, attempts = ended(platform, 1)
        assert (start, state, attempts) == ("zero", "promoted", 1), outcome
        first = wait_for(lambda: platform.champion_of_mlflow(), "a champion")
        wait_for(lambda: told, "a message")
        assert str(told[-1]["champion"]) == first

        # New problems: the champion is trained on, passes and is promoted.
        assert "Added 4" in platform.r1("problems", "add", str(new_problems(tmp_path, 0)))
        start, state, outcome, run_id, _ = ended(platform, 2)
        assert (start, state) == ("r1", "promoted"), outcome
        second = platform.champion_of_mlflow()
        assert second != first
        wait_for(lambda: str(told[-1]["champion"]) == second, "a message")
        taken = dict(platform.rows("SELECT name, state FROM stages WHERE run_id = ?", run_id))
        assert taken["dev2"] == taken["dev3"] == "reused"
        assert taken["r1"] == "finished"

        # A planted mistake: the candidate is refused, and it is said why.
        write_policies(home, BAD)
        platform.r1("problems", "add", str(new_problems(tmp_path, 1)))
        _, state, outcome, _, _ = ended(platform, 3)
        assert state == "refused"
        assert "format" in outcome
        assert platform.champion_of_mlflow() == second
        write_policies(home)

        # A person takes the promotion back.
        platform.r1("rollback", "--why", "the old one was kinder")
        assert platform.champion_of_mlflow() == first
        wait_for(lambda: str(told[-1]["champion"]) == first, "a message")
        assert len(told) == 3

        said = platform.r1("retrain", "--dry-run")
        assert said.startswith("Nothing due: ")
        assert "0 of 4 new problems" in said


ASKING = """
[approval]
required = "always"
"""


def test_a_candidate_that_needs_approval_suspends_the_run_until_the_answer(home):
    with running(home, "--retrain-every", EVERY_SECONDS) as platform:
        assert ended(platform, 1)[1] == "promoted"
        first = wait_for(platform.champion_of_mlflow, "a champion")
        (home / "policies" / "r1.toml").write_text(LENIENT + ASKING)
        platform.r1("problems", "add", str(new_problems(home, 0)))
        assert ended(platform, 2)[1] == "waiting"
        (run,) = wait_for(lambda: flow_runs(platform, "PAUSED"), "a suspended run")
        assert run["state_name"] == "Suspended"
        assert platform.champion_of_mlflow() == first
        (request,) = json.loads(platform.r1("approvals", "list", "--json"))
        platform.r1("approvals", "approve", str(request["id"]), "--why", "reads well")
        assert platform.champion_of_mlflow() == str(request["version"]) != first

        def gone_on():
            return next(
                (one for one in flow_runs(platform, "COMPLETED") if one["id"] == run["id"]), None
            )

        said = wait_for(gone_on, "the end of the suspended run")["state"]["message"]
        assert "approved" in said
        assert "reads well; champion since entry" in said
        assert len(platform.retrainings()) == 2, "nothing was trained again"


AUDIT = """
CREATE TABLE audit (run_id TEXT, stage TEXT, step INTEGER);
CREATE TRIGGER every_step AFTER INSERT ON step_metrics WHEN NEW.name = 'reward/total'
BEGIN
    INSERT INTO audit SELECT run_id, name, NEW.step FROM stages WHERE id = NEW.stage_id;
END;
"""
"""Keeps every step that was ever recorded: the store itself forgets what is done again."""


@pytest.mark.parametrize("victim", ["worker", "prefect", "mlflow"])
def test_a_retraining_survives_the_death_of(victim, home, tmp_path):
    steps, save_every = 12, 2
    with running(home, "--retrain-every", EVERY_SECONDS) as platform:
        assert ended(platform, 1)[1] == "promoted"
        with sqlite3.connect(home / "store.db", timeout=30) as connection:
            connection.executescript(AUDIT)
        connection.close()
        write_policies(home, f"r1.steps={steps}", f"r1.save_every={save_every}")
        platform.r1("problems", "add", str(new_problems(tmp_path, 0)))

        def done() -> list[int]:
            return [row[0] for row in platform.rows("SELECT step FROM audit WHERE stage = 'r1'")]

        wait_for(lambda: len(done()) >= 5, "five steps")
        platform.kill(victim)
        checkpoints = [int(p.parent.name.rpartition("-")[2])
                       for p in home.glob("work/r1-*/checkpoint-*/complete")]  # fmt: skip
        start, state, outcome, run_id, attempts = ended(platform, 2)
        assert (start, state) == ("r1", "promoted"), outcome
        assert attempts > 1 if victim == "worker" else attempts >= 1
        again = {step for step in done() if done().count(step) > 1}
        assert sorted(set(done())) == list(range(1, steps + 1)), "no step is missing"
        assert len(again) <= save_every, "nothing twice but what no checkpoint held"
        assert all(step > min(checkpoints, default=0) for step in again)
        others = platform.rows("SELECT stage, count(*) FROM audit GROUP BY stage")
        assert [stage for stage, _ in others] == ["r1"], "no other stage was trained"
        assert len(platform.rows("SELECT 1 FROM stages WHERE run_id = ?", run_id)) >= 9


def test_a_restart_keeps_state_and_schedules(home):
    with running(home, "--retrain-every", "3600") as platform:
        before = scheduled(platform)
        assert platform.stop(signal.SIGTERM) == 0
        assert platform.parts() == {}, "whoever asks now is told that nothing is served"
        platform.start()
        wait_for(lambda: set(before) <= set(scheduled(platform)), "the same plan as before")


def scheduled(platform: Platform) -> list[tuple[str, str]]:
    """Deployment and time of the runs that are to come, once each deployment has some."""

    def found() -> list[tuple[str, str]]:
        runs = flow_runs(platform, "SCHEDULED")
        plan = [(run["deployment_id"], run["expected_start_time"]) for run in runs]
        return plan if len({deployment for deployment, _ in plan}) == 2 else []

    return wait_for(found, "scheduled runs")


def flow_runs(platform: Platform, state: str) -> list[dict]:
    """What the Prefect server has in a state, stages left out."""
    address = platform.parts()["prefect"]["address"]
    wanted = {"state": {"type": {"any_": [state]}}, "parent_task_run_id": {"is_null_": True}}
    return httpx.post(f"{address}/api/flow_runs/filter", json={"flow_runs": wanted}).json()


def test_a_taken_port_is_one_clear_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words in (["up", "--mlflow-port", port], ["up", "--check", "--mlflow-port", port]):
            done = subprocess.run(
                [sys.executable, "-m", "flows.cli", *words, "--home", str(tmp_path)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 2
            assert f"port {port} for mlflow cannot be opened" in done.stderr
            assert "--mlflow-port" in done.stderr
            assert "Traceback" not in done.stderr
