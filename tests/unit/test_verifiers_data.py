"""Real references: each verifies against itself, and hardly against those of other problems."""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from services.language import language_share
from services.scoring import ScoringPool
from services.types import Problem, Verdict
from services.verifiers import reasoning_gym
from services.verifiers.math import read_number
from services.verifiers.references import reference_answer

DATA = Path(__file__).parents[3] / "shared" / "data"
FILES = ("gsm8k/train.jsonl", "gsm8k/test.jsonl", "aime24/test.jsonl", "cmath/test.jsonl")
MOST_FALSE_POSITIVES = 0.005


def problems(name: str) -> list[Problem]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the data set {name} is not beside the checkout")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    golds = [str(row["answer"]).rsplit("####", 1)[-1].strip() for row in rows]
    return [
        Problem(f"{name}-{n}", "math", row["question"], gold, "en")
        for n, (row, gold) in enumerate(zip(rows, golds, strict=True))
    ]


@pytest.fixture(scope="module")
def pool() -> Iterator[ScoringPool]:
    with ScoringPool() as pool:
        yield pool


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("dress", ["{}", "\\boxed{{{}}}", "The answer is ${}$."])
def test_every_reference_verifies_against_itself(name: str, dress: str, pool: ScoringPool) -> None:
    rows = problems(name)
    asked = [
        pool.judge(problem, f"<answer>{dress.format(problem.gold)}</answer>") for problem in rows
    ]
    verdicts = [future.result().verdict for future in asked]
    wrong = [p.gold for p, verdict in zip(rows, verdicts, strict=True) if verdict != "correct"]
    assert wrong == []
    assert all(reference_answer(problem) for problem in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_shuffled_references_do_not_verify(name: str, pool: ScoringPool) -> None:
    rows = problems(name)
    others = [problem.gold for problem in rows]
    random.Random(0).shuffle(others)
    asked = [
        (problem.gold, other, pool.judge(problem, f"<answer>{other}</answer>"))
        for problem, other in zip(rows, others, strict=True)
    ]
    false = [
        (gold, other)
        for gold, other, future in asked
        if future.result().verdict is Verdict.CORRECT and not tie(gold, other)
    ]
    assert len(false) <= MOST_FALSE_POSITIVES * len(rows), false[:10]


def tie(gold: str, other: str) -> bool:
    """Whether two references are the same number, apart from the way they are written."""
    one, two = (text.replace(",", "").removesuffix(".0") for text in (gold, other))
    return one == two or float(one) == float(two)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its open files
def test_every_task_of_reasoning_gym_knows_its_answer_from_nonsense() -> None:
    library = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    names = [name for name in reasoning_gym.tasks() if name != "composite"]
    assert len(names) > 100
    refused, accepted = [], []
    for name in names:
        for entry in library.create_dataset(name, size=2, seed=3):
            gold = json.dumps(entry, default=str)
            kind = f"{reasoning_gym.PREFIX}{name}"
            problem = Problem(name, kind, entry["question"], gold, "en")
            answer = reference_answer(problem)
            if answer is not None:
                refused += [name] * (reasoning_gym.verify(problem, answer).verdict != "correct")
            for nonsense in ("no idea (at all", "zzz", "[]"):
                accepted += [name] * (reasoning_gym.verify(problem, nonsense).verdict == "correct")
    assert (refused, accepted) == ([], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "language"), [("gsm8k/test.jsonl", "en"), ("cmath/test.jsonl", "zh")]
)
def test_real_questions_are_in_their_language(name: str, language: str) -> None:
    shares = [language_share(problem.question, language) for problem in problems(name)]
    assert min(shares) >= 0.89
    assert fmean(shares) >= 0.999


def test_tie_is_about_numbers() -> None:
    assert tie("1,000", "1000")
    assert not tie("1000", "1001")
    pairs = itertools.product(("1,000", "7", "7.5"), repeat=2)
    assert all(tie(a, b) == (read_number(a) == read_number(b)) for a, b in pairs)
