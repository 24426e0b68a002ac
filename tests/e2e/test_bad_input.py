"""What a user sees of a mistake: one line that says what and how to mend it, and exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import MICRO


def r1(*words: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "R1_"))}
    command = [sys.executable, "-m", "flows.cli", *words, "--home", str(home)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def assert_refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith("Error: ")
    for words in said:
        assert words in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "zero.stepz=3"], "Did you mean zero.steps?"),
        (["--recipe", "nope"], "there is no recipe 'nope'"),
        (["--until", "dev9"], "there is no stage 'dev9'"),
        (
            ["--recipe", "smollm2-gsm8k", "--set", "problems.train_file=nowhere.jsonl"],
            "there is no problem file nowhere.jsonl",
        ),
    ],
)
def test_what_is_known_before_anything_starts(words: list[str], said: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert_refused(r1("run", *words, home=home), said)
    assert not (home / "artifacts").exists()
    assert not (home / "store.db").exists()


def test_an_empty_problem_set(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    change = f"problems.train_file='{empty}'"
    done = r1("run", "--recipe", "smollm2-gsm8k", "--set", change, home=tmp_path / "home")
    assert_refused(done, "holds no problem")


def test_an_unreadable_checkpoint(tmp_path: Path) -> None:
    """Found out inside a stage: neither Prefect nor Python adds a word of its own."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (broken / "model.safetensors").write_bytes(b"not safetensors")
    changes = [f"--set={change}" for change in ("name='micro'", *MICRO)]
    home = tmp_path / "home"
    done = r1("run", *changes, f"--set=models.base='{broken}'", "--until", "zero", home=home)
    assert_refused(done, "cannot load a model from")
    assert not [path for path in (home / "artifacts").glob("*") if not path.name.startswith(".")]
