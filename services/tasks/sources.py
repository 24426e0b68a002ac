"""Problems for a recipe: training problems by seed, held-out problems by level.

One function per question a stage asks: which problems do I train on, which general prompts go with
them, which do I measure on. Countdown draws its puzzles; a file gives what it holds. The splits
never share a question.
"""

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.artifacts import digest_of
from services.config import RL, Evaluation, Problems
from services.errors import ProblemError
from services.smallworld.corpus import question_text
from services.smallworld.phrases import LANGUAGES, Language
from services.tasks import countdown, general
from services.tasks.pool import mixed, read_snapshot
from services.types import Problem


def training_problems(settings: Problems, seed: int, count: int) -> list[Problem]:
    """``count`` reasoning problems of the training split; short sources are cycled through.

    Where the recipe names a snapshot of the pool, every so many are taken from it.
    """
    own = _own_problems(settings, seed, count)
    if not settings.pool or not settings.pool_share:
        return own
    return mixed(own, read_snapshot(settings.pool), settings.pool_share, seed)


def _own_problems(settings: Problems, seed: int, count: int) -> list[Problem]:
    if settings.source == "countdown":
        puzzles = itertools.islice(countdown.draw_distinct(seed, settings.levels), count)
        return _puzzle_problems(list(puzzles), seed)
    problems = read_problems(settings.train_file, settings)
    random.Random(seed).shuffle(problems)
    return list(itertools.islice(itertools.cycle(problems), count))


def held_out_problems(settings: Problems, seed: int, per_level: int) -> list[Problem]:
    """The same number of held-out problems of every level; of a file, that many altogether."""
    if settings.source == "countdown":
        levels = sorted(set(settings.levels))
        puzzles = countdown.draw_distinct(seed, levels, held_out=True)
        return _puzzle_problems(list(itertools.islice(puzzles, per_level * len(levels))), seed)
    problems = read_problems(settings.test_file or settings.train_file, settings)
    random.Random(seed).shuffle(problems)
    return problems[:per_level]


def general_problems(seed: int, count: int) -> list[Problem]:
    """``count`` general prompts of the training split; they repeat, the table is small."""
    drawn = itertools.islice(general.endless(seed), count)
    return [general_problem(prompt) for prompt in drawn]


def held_out_general_problems(seed: int, at_most: int) -> list[Problem]:
    """Different held-out general prompts, in an order drawn from the seed."""
    prompts = general.prompts("held_out")
    random.Random(seed).shuffle(prompts)
    return [general_problem(prompt) for prompt in prompts[:at_most]]


def rl_schedule(settings: Problems, rl: RL, seed: int) -> list[list[Problem]]:
    """Problems of a reinforcement-learning stage, ``prompts_per_step`` for every part of a rollout.

    There are as many lists as whole rollouts of ``steps`` take; with one epoch per rollout, list i
    is what step i trains on. General prompts take their share of the last
    ``preference_last_steps`` steps, as in the paper's second stage; before, all are reasoning
    problems.
    """
    parts = rl.minibatches_per_rollout
    lists = -(-rl.steps // rl.steps_per_rollout) * parts
    first_steps = [i // parts * rl.steps_per_rollout + i % parts for i in range(lists)]
    reasoning = iter(training_problems(settings, seed, lists * rl.prompts_per_step))
    general_count = round(rl.general_share * rl.prompts_per_step) if settings.general else 0
    talking = [step >= rl.steps - rl.preference_last_steps for step in first_steps]
    talk = iter(general_problems(seed, sum(talking) * general_count))
    schedule = []
    for talks in talking:
        mixed = general_count if talks else 0
        schedule.append(
            [
                *itertools.islice(reasoning, rl.prompts_per_step - mixed),
                *itertools.islice(talk, mixed),
            ]
        )
    return schedule


def validation_problems(settings: Problems, measured: Evaluation, count: int) -> list[Problem]:
    """Held-out problems to watch training by, none of which the final evaluation asks.

    Raises:
        ProblemError: The evaluation takes all there are.
    """
    at_once = measured.problems_per_level
    asked = {_puzzle_of(p) for p in held_out_problems(settings, measured.seed, at_once)}
    levels = len(set(settings.levels)) if settings.source == "countdown" else 1
    drawn = held_out_problems(settings, measured.seed + 1, at_once + -(-count // levels))
    left = [problem for problem in drawn if _puzzle_of(problem) not in asked]
    if not left:
        raise ProblemError(
            "the evaluation takes all held-out problems, so none are left to watch training by",
            "Lower evaluation.problems_per_level, or set eval_every to 0",
        )
    return left[:count]


def _puzzle_of(problem: Problem) -> str:
    """What makes a problem the same one, whatever language it is asked in."""
    return problem.gold if problem.kind == "countdown" else problem.id


def general_problem(prompt: general.GeneralPrompt) -> Problem:
    """A general prompt as a problem; there is no reference answer."""
    return Problem(
        id=f"general-{digest_of(prompt.text)[:12]}",
        kind="general",
        question=prompt.text,
        gold="",
        language=prompt.language,
    )


def _puzzle_problems(puzzles: Sequence[countdown.Countdown], seed: int) -> list[Problem]:
    """Puzzles as questions in words, languages in turn per level."""
    rng = random.Random(f"questions:{seed}")
    asked: dict[int, int] = {}
    problems = []
    for puzzle in puzzles:
        turn = asked.get(puzzle.level, 0)
        asked[puzzle.level] = turn + 1
        language = LANGUAGES[turn % len(LANGUAGES)]
        problems.append(puzzle_problem(puzzle, language, rng))
    return problems


def puzzle_problem(puzzle: countdown.Countdown, language: Language, rng: random.Random) -> Problem:
    """A puzzle as a question in words, which ``rng`` chooses."""
    gold = {
        "numbers": list(puzzle.numbers),
        "target": puzzle.target,
        "ordered": True,
        "operators": "+-",
    }
    numbers = "-".join(map(str, puzzle.numbers))
    return Problem(
        id=f"countdown-{numbers}-to-{puzzle.target}-{language}",
        kind="countdown",
        question=question_text(puzzle, language, rng),
        gold=json.dumps(gold),
        language=language,
        level=puzzle.level,
    )


def require_problems(settings: Problems) -> None:
    """Read the files that a recipe names, before anything that takes long.

    Raises:
        ProblemError: One is missing, holds no problem, or has a row that is none.
    """
    if settings.source == "jsonl":
        for source in (settings.train_file, settings.test_file):
            if source and not source.startswith("hub:"):
                read_problems(source, settings)
    if settings.pool and settings.pool_share:
        read_snapshot(settings.pool)


def read_problems(source: str, settings: Problems) -> list[Problem]:
    """Problems of a JSON lines file, or of ``hub:DATASET:CONFIG:SPLIT``.

    GSM8K's worked answers are understood: what follows ``####`` is the reference.

    Raises:
        ProblemError: The source is missing, holds no problem, or a row is not one.
    """
    problems = (
        _hub_problems(source, settings)
        if source.startswith("hub:")
        else (_file_problems(Path(source), settings))
    )
    if not problems:
        raise ProblemError(f"{source} holds no problem", "Add rows with question and answer")
    return problems


def _file_problems(path: Path, settings: Problems) -> list[Problem]:
    if not path.is_file():
        raise ProblemError(
            f"there is no problem file {path}",
            "Give an existing JSON lines file with --set problems.train_file=FILE",
        )
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        _read_row(line, f"{path}, line {number}", settings)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _hub_problems(source: str, settings: Problems) -> list[Problem]:
    from datasets import load_dataset

    try:
        _, name, config, split = source.split(":")
        table = load_dataset(name, config or None, split=split)
    except (ValueError, OSError) as error:
        raise ProblemError(
            f"cannot load {source}: {str(error).strip().splitlines()[0]}",
            "Write hub:DATASET:CONFIG:SPLIT and check the connection, or name a JSON lines file",
        ) from error
    return [
        _read_row(json.dumps(row), f"{source}, row {number}", settings)
        for number, row in enumerate(table)
    ]


def _read_row(line: str, where: str, settings: Problems) -> Problem:
    mend = 'Write {"question": "…", "answer": "…"} on one line'
    try:
        row = json.loads(line)
        question = row.get("question") or row["problem"]
        reference = _reference(row, settings.kind)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ProblemError(f"{where} is not a problem: {error!r}", mend) from error
    if not question or not reference:
        raise ProblemError(f"{where} has an empty question or answer", mend)
    return Problem(
        id=f"{settings.kind}-{digest_of(question)[:12]}",
        kind=settings.kind,
        question=question,
        gold=reference,
        language=settings.language,
        level=int(row.get("level") or 0),
    )


def _reference(row: dict[str, Any], kind: str) -> str:
    """The answer of a row in the form that the verifier of ``kind`` reads."""
    answer = row["answer"]
    if kind.startswith("reasoning_gym/"):
        return json.dumps({name: row[name] for name in ("question", "answer", "metadata")})
    if not isinstance(answer, str):
        return json.dumps(answer)
    return (answer.rsplit("####", 1)[-1] if kind == "math" else answer).strip()
