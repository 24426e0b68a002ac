"""A hang or a crash costs one row; the rest is scored, in order."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import scoring
from services.config import RewardWeights
from services.errors import ProblemError, RewardError
from services.scoring import ScoringPool
from services.types import Problem, Verdict

WEIGHTS = RewardWeights(language=1.0)

WORKER = """
import os, pathlib, signal, time
from services.errors import ProblemError
from services.types import Judgement, Verdict
from services.verifiers import VERIFIERS, worker

def verify(problem, answer):
    command, _, rest = answer.strip().partition(": ")
    if command == "sleep":
        time.sleep(60)
    if command == "nap":
        time.sleep(0.7)
    if command == "compute":
        while True:
            pass
    if command == "stuck":  # as in library code in C, which no signal reaches
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        time.sleep(60)
    if command == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if command == "break off":
        os.write(reply_to, b'["corr')
        os.kill(os.getpid(), signal.SIGKILL)
    if command == "memory":
        bytearray(2 ** 40)
    if command == "raise":
        raise ValueError("not foreseen")
    if command == "recurse":
        verify(problem, answer)
    if command == "lack":
        raise ProblemError("it lacks a library", "Install it")
    if command == "print":
        print("noise"), os.write(1, b"noise"), os.write(2, b"noise")
    if command == "wait":
        while not pathlib.Path(rest).exists():
            time.sleep(0.01)
    if command == "meet":
        mine, other = map(pathlib.Path, rest.split())
        mine.touch()
        while not other.exists():
            time.sleep(0.01)
    if command == "pid":
        return Judgement(Verdict.CORRECT, str(os.getpid()))
    return Judgement(Verdict.CORRECT, f"{problem.gold} {command}")

VERIFIERS["judge"] = verify
reply_to = os.dup(1)
worker.FIRST_OF_KIND_SECONDS = 0.0
worker.PATIENCE = 2.0
worker.main()
"""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[ScoringPool]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with ScoringPool(requests=2, seconds=0.5, worker=(sys.executable, str(script))) as pool:
        yield pool


def problem(gold: str = "", kind: str = "judge") -> Problem:
    return Problem("p", kind, "", gold, "en")


def completion(answer: str) -> str:
    return f"<think> so </think> <answer> {answer} </answer>"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("sleep", "the verifier took more than 0.5 seconds"),
        ("compute", "the verifier took more than 0.5 seconds"),
        ("stuck", "the verifier's process took too long"),
        ("die", "the verifier's process died (exit code -9)"),
        ("break off", "the verifier's process died (exit code -9)"),
        ("memory", "the verifier failed: MemoryError()"),
        ("raise", "the verifier failed: ValueError('not foreseen')"),
        ("recurse", "the verifier failed: RecursionError"),
    ],
)
def test_a_failure_costs_one_row(command: str, reason: str, pool: ScoringPool) -> None:
    answers = ["fine", "fine", command, "fine", "fine"]
    rows = [(problem(str(place)), completion(answer)) for place, answer in enumerate(answers)]
    scores = pool.score_all(rows, weights=WEIGHTS)
    assert [score.reason for score in scores if score.total is not None] == [
        "0 fine",
        "1 fine",
        "3 fine",
        "4 fine",
    ]
    assert scores[2].verdict is Verdict.UNSCORABLE
    assert scores[2].reason.startswith(reason)
    assert "accuracy" not in scores[2].parts


def test_a_busy_machine_makes_no_verifier_late(pool: ScoringPool) -> None:
    """Waiting longer than the limit is fine as long as it is not spent computing."""
    scores = pool.score_all([(problem("g"), completion("nap"))], weights=WEIGHTS)
    assert [score.reason for score in scores] == ["g nap"]


def test_scores_come_in_the_order_of_submission(pool: ScoringPool) -> None:
    rows = [(problem(str(place)), completion("fine")) for place in range(50)]
    scores = pool.score_all(rows, weights=WEIGHTS)
    assert [score.reason for score in scores] == [f"{place} fine" for place in range(50)]


def test_what_a_verifier_prints_does_not_matter(pool: ScoringPool) -> None:
    scores = pool.score_all([(problem("g"), completion("print"))] * 3, weights=WEIGHTS)
    assert {score.reason for score in scores} == {"g print"}


def test_what_a_verifier_lacks_stops_the_run(pool: ScoringPool) -> None:
    pool.submit(problem(), completion("lack"))
    with pytest.raises(RewardError, match=r"it lacks a library\. Install it"):
        pool.collect(weights=WEIGHTS)


def test_submitting_does_not_wait(pool: ScoringPool, tmp_path: Path) -> None:
    go = tmp_path / "go"
    pool._seconds = 60.0
    future = pool.judge(problem("g"), completion(f"wait: {go}"))
    assert not future.done()
    go.touch()
    assert future.result().reason == "g wait"


def test_judges_are_asked_at_once(pool: ScoringPool, tmp_path: Path) -> None:
    """The first answer waits for what the second one brings: neither is asked after the other."""
    pool._seconds = 60.0
    signs = [tmp_path / "one", tmp_path / "two"]
    futures = [
        pool.judge(problem("g"), completion(f"meet: {mine} {other}"))
        for mine, other in (signs, signs[::-1])
    ]
    assert [future.result().reason for future in futures] == ["g meet", "g meet"]


def test_closing_ends_the_children_and_drops_the_rest(pool: ScoringPool) -> None:
    pool._seconds = 60.0
    begun = [pool.judge(problem(), completion("sleep")) for _ in range(2)]
    waiting = [pool.judge(problem(), completion("fine")) for _ in range(20)]
    pool.close()
    assert all(future.done() for future in begun + waiting)
    assert any(future.cancelled() for future in waiting)


def test_children_are_replaced_before_they_grow(
    pool: ScoringPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_ITEMS_BEFORE_RENEWAL", 2)
    pool._asking._most = 1
    scores = pool.score_all([(problem(), completion("pid"))] * 6, weights=WEIGHTS)
    pids = [score.reason for score in scores]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]


def test_cheap_kinds_start_no_child() -> None:
    with ScoringPool(worker=("/nothing",)) as pool:
        rows = [
            (problem("Paris", "exact"), completion("paris")),
            (problem("B", "choice"), completion("B")),
            (problem("18", "math"), completion("18 dollars")),
            (problem("", "general"), completion("hello")),
            (problem('{"numbers": [1, 2], "target": 3}', "countdown"), completion("1 + 2")),
        ]
        scores = pool.score_all(rows, weights=WEIGHTS)
    assert [score.verdict for score in scores] == [Verdict.CORRECT] * 5


def test_unknown_kind_is_refused_at_once(pool: ScoringPool) -> None:
    with pytest.raises(ProblemError, match="sudoku"):
        pool.submit(problem("", "sudoku"), "x")


def test_preferences_join_at_the_end(pool: ScoringPool) -> None:
    for text in ("hello", "hi"):
        pool.submit(problem("", "general"), completion(text))
    scores = pool.collect(weights=RewardWeights(preference=0.5), preferences=[0.5, None])
    assert [score.parts.get("preference") for score in scores] == [0.5, None]
    assert [score.total for score in scores] == [1.25, 1.0]
    assert pool.collect(weights=WEIGHTS) == []


def test_real_workers_verify_mathematics() -> None:
    rows = [
        (problem(r"\sqrt{8}", "math"), completion(r"\boxed{2\sqrt{2}}")),
        (problem(r"\sqrt{8}", "math"), completion(r"\boxed{3\sqrt{2}}")),
        (problem(r"\frac{", "math"), completion("5")),
        (problem("5", "math"), completion("9^9^9^9")),
        (problem("5", "math"), completion("x\ud800\x00")),
        (problem("5", "math"), completion("(" * 10_000)),
    ]
    with ScoringPool(1) as pool:
        scores = pool.score_all(rows, weights=WEIGHTS)
    assert [score.verdict.value for score in scores] == [
        "correct",
        "wrong",
        "unscorable",
        "wrong",
        "wrong",
        "wrong",
    ]


def test_form_decides_where_the_answer_is() -> None:
    text = r"<think> \boxed{3} </think> It is \boxed{4}."
    with ScoringPool(form="boxed") as pool:
        [score] = pool.score_all([(problem("4", "math"), text)], weights=WEIGHTS)
    assert (score.total, json.dumps(dict(score.parts))) == (
        3.0,
        '{"accuracy": 1.0, "format": 1.0, "language": 1.0}',
    )
