"""``r1 verify`` and ``r1 reward``: JSON lines in, JSON lines out, and a bad line by its number."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from services.config import RewardWeights, Shaping
from services.errors import ProblemError, RewardError
from services.reward_lines import audit_lines, reward_lines, verify_lines
from services.types import Judgement, Problem, Verdict
from services.verifiers.judge import Judge, JudgeError

PUZZLE = json.dumps({"numbers": [9, 1, 3], "target": 11, "ordered": True, "operators": "+-"})
WEIGHTS = RewardWeights(accuracy=1.0, format=0.5, language=0.25, preference=2.0)
RIGHT = "<think> try 9 -1 =8 +3 =11 . 对 </think> <answer> 9 -1 +3 </answer>"
WRONG = "<think> i give up . </think> <answer> none </answer>"


def line(**changes: object) -> str:
    row = {"kind": "countdown", "problem": "q", "gold": PUZZLE, "completion": RIGHT}
    return json.dumps({**row, "language": "en", **changes})


def test_reward_lines_answer_each_line() -> None:
    lines = [
        line(),
        line(gold=json.loads(PUZZLE), completion=WRONG),
        "\n",
        line(gold="broken"),
        line(kind="general", gold="", completion="嗨 \ud800"),
    ]
    rows = [json.loads(row) for row in reward_lines(lines, WEIGHTS)]
    assert [row["verdict"] for row in rows] == ["correct", "wrong", "unscorable", "correct"]
    assert [row["total"] for row in rows] == [1.625, 0.75, None, 0.25]
    assert rows[0]["parts"] == {"accuracy": 1.0, "format": 1.0, "language": 0.5}
    assert "the reference is no puzzle" in rows[2]["reason"]


def test_verify_lines_take_an_answer_alone() -> None:
    lines = [line(completion="9 -1 +3"), line(completion=WRONG), line(gold="broken")]
    rows = [json.loads(row) for row in verify_lines(lines)]
    assert [row["verdict"] for row in rows] == ["correct", "wrong", "unscorable"]
    assert [row["parts"] for row in rows] == [{"accuracy": 1.0}, {"accuracy": 0.0}, {}]
    assert [row["total"] for row in rows] == [1.0, 0.0, None]


def test_what_no_rule_can_verify_is_unscorable() -> None:
    [row] = map(json.loads, verify_lines([line(kind="general", gold="")]))
    assert (row["verdict"], row["total"]) == ("unscorable", None)


def test_bytes_are_utf8_with_or_without_a_byte_order_mark() -> None:
    lines = [b"\xef\xbb\xbf" + line().encode(), line(completion="对").encode()]
    assert [json.loads(row)["verdict"] for row in verify_lines(lines)] == ["correct", "wrong"]


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("{", "line 3 is not JSON"),
        ("[" * 100_000, "line 3 is not JSON"),
        ("9" * 10_000, "line 3 is not JSON"),
        ("[]", "line 3 is not a JSON object"),
        ("{}", "line 3 has no kind"),
        (b'{"kind": "\xff"}', "line 3 is not UTF-8"),
        (line(kind="sudoku"), "line 3: no verifier is called 'sudoku'"),
        (line(gold=None), "line 3 has no gold"),
        (line(completion=5), "line 3 has no completion"),
        (line(language=5), "line 3 has no language"),
        (line(tokens=-1), "line 3: tokens is no length"),
    ],
)
def test_bad_line_is_named_by_its_number_after_those_before_it(bad: str | bytes, what: str) -> None:
    answers = verify_lines([line(), "\n", bad, line()])
    assert json.loads(next(answers))["verdict"] == "correct"
    with pytest.raises(ProblemError) as caught:
        next(answers)
    assert caught.value.what.startswith(what)
    assert caught.value.mend


def test_an_answer_comes_before_the_next_line_is_there() -> None:
    asked = threading.Event()

    def lines() -> Iterator[str]:
        yield line()
        assert asked.wait(30), "nobody took the first answer while the second line was awaited"
        yield line(completion=WRONG)

    answers = verify_lines(lines())
    assert json.loads(next(answers))["verdict"] == "correct"
    asked.set()
    assert json.loads(next(answers))["verdict"] == "wrong"


def test_reading_stays_a_bounded_way_ahead() -> None:
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield line()

    answers = verify_lines(lines())
    next(answers)
    answers.close()
    assert taken < 2_000


def test_optional_parts_by_length_need_the_length() -> None:
    shaping = Shaping(length=0.5)
    [row] = reward_lines([line(tokens=20)], RewardWeights(), shaping=shaping, max_tokens=80)
    assert json.loads(row)["parts"]["length"] == -0.25
    assert json.loads(row)["total"] == 2.0 - 0.5 * 0.25
    with pytest.raises(ProblemError, match="line 1 has no tokens"):
        list(reward_lines([line()], RewardWeights(), shaping=shaping, max_tokens=80))


def test_target_language_may_be_the_recipes() -> None:
    [row] = reward_lines([line(completion=WRONG)], WEIGHTS, target_language="zh")
    assert json.loads(row)["parts"]["language"] == 0.0


def test_what_a_verifier_lacks_names_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R1_JUDGE_URL", raising=False)
    with pytest.raises(RewardError, match=r"^line 2: .*R1_JUDGE_URL"):
        list(verify_lines([line(), line(kind="judge", gold="x")]))


class Strict:
    """A judge that finds everything wrong, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def verify(self, problem: Problem, answer: str) -> Judgement:
        self.asked.append(answer.strip())
        return Judgement(Verdict.WRONG, "strict")


def test_audit_asks_the_judge_about_what_rules_can_score() -> None:
    strict: Judge = Strict()  # type: ignore[assignment]
    lines = [line(), line(completion="8"), line(gold="broken"), line(kind="judge", gold="x")]
    agreement = audit_lines(lines, strict)
    assert (agreement.both_wrong, agreement.too_strict, agreement.unscorable) == (1, 1, 2)
    assert sorted(strict.asked) == ["8", "9 -1 +3"]  # type: ignore[attr-defined]
    assert agreement.figures()["agreement"] == 0.5
    assert "line-1" in agreement.examples[0]


def test_audit_without_a_judge_names_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("R1_JUDGE_URL", raising=False)
    with pytest.raises(JudgeError, match="R1_JUDGE_URL"):
        audit_lines([line()])


# --- the command line ---------------------------------------------------------------------------


def test_commands_read_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(f"{line()}\n{line(completion=WRONG)}\n", encoding="utf-8")
    home = ["--home", str(tmp_path)]
    verified = CliRunner().invoke(app, ["verify", str(path), *home])
    assert [json.loads(row)["verdict"] for row in verified.stdout.splitlines()] == [
        "correct",
        "wrong",
    ]
    formula = ["--stage", "dev2", "--set", "dev2.shaping.repetition=1.0"]
    rewarded = CliRunner().invoke(app, ["reward", str(path), *formula, *home])
    rows = [json.loads(row) for row in rewarded.stdout.splitlines()]
    assert [set(row) for row in rows] == [{"verdict", "parts", "total", "reason"}] * 2
    assert rows[0]["parts"] == {"accuracy": 1.0, "format": 1.0, "language": 0.5, "repetition": 0.0}
    assert [row["total"] for row in rows] == [2.5, 2.0]


def test_format_is_the_recipes_unless_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    completion = r"so </think> It is \boxed{9 -1 +3}."
    path.write_text(line(completion=completion), encoding="utf-8")
    boxed = ["--set", "problems.format=boxed-open", "--set", "problems.general=false"]
    for options in (boxed, ["--format", "boxed-open"]):
        done = CliRunner().invoke(app, ["reward", str(path), "--home", str(tmp_path), *options])
        assert json.loads(done.stdout)["parts"]["format"] == 1.0
    plain = CliRunner().invoke(app, ["reward", str(path), "--home", str(tmp_path)])
    assert json.loads(plain.stdout)["parts"]["format"] == 0.0


def test_standard_input_and_a_bad_line_as_a_user_sees_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "verify", "--home", str(tmp_path)]
    text = f"{line(problem='对')}\n{{oops\n{line()}\n".encode()
    done = subprocess.run(command, input=text, capture_output=True, check=False)
    assert done.returncode == 2
    assert [json.loads(row)["verdict"] for row in done.stdout.splitlines()] == ["correct"]
    [said] = done.stderr.decode().splitlines()
    assert said.startswith("Error: line 2 is not JSON")
