"""Commands of the platform as a user types them: problems, webhooks, policies, retention."""

import json

import pytest
from typer.testing import CliRunner

from flows.cli import app
from services.errors import PolicyError, ProblemError, WebhookError
from services.store import MissingStoreError

GOOD = '{"question": "What is 3 + 4 ?", "answer": "7", "kind": "math", "level": 1}\n'


@pytest.fixture
def r1(tmp_path, monkeypatch):
    monkeypatch.setenv("R1_HOME", str(tmp_path))

    def call(*words):
        done = CliRunner().invoke(app, [*map(str, words), "--home", str(tmp_path)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return call


def test_problems_are_added_listed_counted_and_frozen(r1, tmp_path):
    file = tmp_path / "new.jsonl"
    file.write_text(GOOD)
    said = r1("problems", "add", file, "--who", "ann").stdout
    assert said == "Added 1 problems; 1 wait for a retraining.\n"
    (row,) = json.loads(r1("problems", "list", "--json", "--unused").stdout)
    assert (row["problem"]["gold"], row["origin"], row["who"]) == ("7", "new.jsonl", "ann")
    assert json.loads(r1("problems", "stats", "--json").stdout)[0]["unused"] == 1
    assert "What is 3 + 4 ?" in r1("problems", "list").stdout
    digest = r1("problems", "snapshot").stdout.strip().splitlines()[-1]
    assert (tmp_path / "pools" / f"{digest}.jsonl").is_file()
    with pytest.raises(ProblemError, match=r"line 1: asks the same as .* nothing was added"):
        r1("problems", "add", file)


def test_a_kind_for_rows_without_one(r1, tmp_path):
    file = tmp_path / "new.jsonl"
    file.write_text('{"question": "Say B .", "answer": "B"}\n')
    with pytest.raises(ProblemError, match="line 1"):
        r1("problems", "add", file, "--kind", "riddle")
    r1("problems", "add", file, "--kind", "choice", "--language", "de")
    (row,) = json.loads(r1("problems", "stats", "--json").stdout)
    assert (row["kind"], row["language"]) == ("choice", "de")


def test_subscriptions_are_added_listed_and_ended(r1):
    with pytest.raises(WebhookError, match="could be read on the way"):
        r1("webhooks", "add", "http://example.org/")
    assert r1("webhooks", "add", "http://127.0.0.1:9/", "--model", "r1").stdout.startswith(
        "Subscription 1"
    )
    (row,) = json.loads(r1("webhooks", "list", "--json").stdout)
    assert (row["model"], row["sent"], row["owed"]) == ("r1", 0, 0)
    assert "Nothing is owed" in r1("webhooks", "send").stdout
    r1("webhooks", "remove", 1)
    assert json.loads(r1("webhooks", "list", "--json").stdout) == []


def test_a_policy_is_shown_with_the_files_that_make_it(r1, tmp_path):
    (tmp_path / "policies").mkdir()
    own = tmp_path / "policies" / "r1.toml"
    own.write_text("[approval]\nrequired = 'always'\n")
    assert str(own) in r1("policy").stdout
    shown = json.loads(r1("policy", "r1", "--json").stdout)
    assert shown["approval"]["required"] == "always"
    own.write_text("approve = true\n")
    with pytest.raises(PolicyError, match="Did you mean approval"):
        r1("policy")


@pytest.mark.parametrize(
    "words",
    [
        ("models",),
        ("approvals", "list"),
        ("problems", "list"),
        ("webhooks", "list"),
        ("store", "retention"),
        ("watch",),
    ],
)
def test_where_nothing_has_run_it_says_so_and_creates_nothing(r1, tmp_path, words):
    with pytest.raises(MissingStoreError, match="r1 run"):
        r1(*words)
    assert list(tmp_path.iterdir()) == []
