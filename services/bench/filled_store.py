"""A store as large as years of use make it, for measuring the pages that read it.

Nothing in it was trained. Its texts are real: small-world traces from worse to better habits,
scored and counted by the product's own code once, and drawn from again and again; its curves are
the product's own metrics of them. Half of all steps belong to the first run, so that the run that
is looked at is larger than any fair share.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, delete, func, insert, select, text

from services.config import Recipe, RewardWeights
from services.metrics import Scored, batch_metrics
from services.rewards import score
from services.smallworld.phrases import LANGUAGES, Language
from services.smallworld.search import write_trace
from services.store import rows
from services.store.opening import open_engine_to_write, storage_errors
from services.store.problems import problem_ids
from services.store.schema import (
    CuratedRows,
    Decisions,
    Evaluations,
    EvaluationSamples,
    Rollouts,
    RolloutTexts,
    Runs,
    Stages,
    StepMetrics,
)
from services.tasks import countdown
from services.tasks.sources import puzzle_problem
from services.traces import facts_of
from services.types import Completion, DropReason, Problem

LEVELS: Final = (3, 4, 5, 6)
PROBLEMS: Final = 320
SKILLS: Final = 8
"""Habits from worst to best: who gives up at every other miss, and who never does."""
GROUP: Final = 10
STAGE_SHARES: Final = {"zero": 0.6, "dev2": 0.15, "r1": 0.15, "student-rl": 0.1}
"""Which part of a run's steps each stage has."""
OTHER_STAGES: Final = {
    "cold-start": "curation", "dev1": "sft", "sft-set": "curation", "dev3": "sft",
    "preference": "preference", "distill": "sft", "evaluate": "evaluation", "gate": "gate",
}  # fmt: skip
ORDER: Final = (
    "zero", "cold-start", "dev1", "dev2", "sft-set", "dev3", "preference", "r1", "distill",
    "student-rl", "evaluate", "gate",
)  # fmt: skip
MODELS: Final = (
    "base", "r1-zero", "dev1", "dev2", "dev3", "r1", "student", "distill", "student-rl"
)  # fmt: skip
SFT_STEPS: Final = 200
EVALUATED: Final = 48
"""Held-out problems of an evaluation; ``GROUP`` completions each."""
CANDIDATES: Final = 2000
"""Rows of each curated set, kept and dropped."""
BATCH_ROWS: Final = 10_000
NEWEST: Final = datetime(2026, 1, 31, tzinfo=UTC)


class Size(NamedTuple):
    """How much there is."""

    completions: int = 1_000_000
    steps: int = 10_000
    """Of all runs together, reinforcement learning alone."""
    runs: int = 20

    def run_id(self, number: int) -> str:
        """Name of a run; the first one, number 0, is the largest and the newest."""
        return f"bench-{self.completions}-{self.steps}-{number:02}"


class _Drawn(NamedTuple):
    """A scored completion, and its columns ready to be stored."""

    row: Scored
    columns: dict[str, Any]


Pool = dict[int, list[list[_Drawn]]]
"""By skill, then by problem: ``GROUP`` completions."""


def fill(url: str, size: Size, say: Callable[[str], None] = lambda _: None) -> None:
    """Make the store, or leave it if it holds exactly this already.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://…``; its other runs stay as they are.
        size: How much of it.
        say: Is told how far it is.

    Raises:
        StoreError: The store cannot be written.
    """
    engine = open_engine_to_write(url)
    with storage_errors(engine):
        if _is_filled(engine, size):
            return
        pool = _pool(random.Random("bench:store"), PROBLEMS)
        spread = _steps_of_runs(size)
        for number, steps in enumerate(spread):
            say(f"run {number + 1} of {size.runs}: {steps:,} steps")
            with engine.begin() as connection:
                _write_run(connection, size, number, steps, pool)
        _settle(engine)
    engine.dispose()


def _is_filled(engine: Engine, size: Size) -> bool:
    names = [size.run_id(number) for number in range(size.runs)]
    count = select(func.count()).where(Runs.id.in_(names), Runs.state == "finished")
    with engine.connect() as connection:
        return connection.execute(count).scalar_one() == size.runs


def _steps_of_runs(size: Size) -> list[int]:
    """Half of the steps to the first run, the rest in equal parts."""
    if size.runs == 1:
        return [size.steps]
    others = size.runs - 1
    share, left = divmod(size.steps - size.steps // 2, others)
    return [size.steps // 2 + left, *[share] * others]


def _settle(engine: Engine) -> None:
    """What a database does by itself in time: statistics, and on PostgreSQL the visibility map."""
    command = "VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(command))


def _pool(rng: random.Random, problems: int) -> Pool:
    """Completions of every skill for every problem."""
    asked = [_problem(rng, LEVELS[place % len(LEVELS)]) for place in range(problems)]
    return {
        skill: [_group(rng, puzzle, problem, skill / (SKILLS - 1)) for puzzle, problem in asked]
        for skill in range(SKILLS)
    }


def _problem(rng: random.Random, level: int) -> tuple[countdown.Countdown, Problem]:
    puzzle = countdown.draw(rng, level)
    return puzzle, puzzle_problem(puzzle, rng.choice(LANGUAGES), rng)


def _group(
    rng: random.Random, puzzle: countdown.Countdown, problem: Problem, skill: float
) -> list[_Drawn]:
    return [_completion(rng, puzzle, problem, skill) for _ in range(GROUP)]


def _completion(
    rng: random.Random, puzzle: countdown.Countdown, problem: Problem, skill: float
) -> _Drawn:
    language: Language = "en" if problem.language == "en" else "zh"
    switching = rng.random() < 0.2 + 0.3 * skill
    trace = write_trace(puzzle, language, rng, give_up=0.6 * (1 - skill), switching=switching)
    mark = score(problem, trace, weights=RewardWeights(language=0.5))
    completion = Completion(trace, tuple(range(len(trace.split()) + 1)), (), truncated=False)
    facts = facts_of(problem, trace, mark.verdict)
    columns = rows.graded_columns(completion, mark, facts)
    return _Drawn(Scored(problem, completion, mark, facts), columns)


def _write_run(connection: Connection, size: Size, number: int, steps: int, pool: Pool) -> None:
    run_id, rng = size.run_id(number), random.Random(f"bench:run:{number}")
    connection.execute(delete(Runs).where(Runs.id == run_id))
    began = NEWEST - timedelta(days=number)
    recipe = Recipe(name="bench", seed=number)
    connection.execute(
        insert(Runs).values(
            id=run_id, recipe_name="bench", recipe_digest=f"{number:064}",
            recipe=recipe.model_dump_json(), seed=number, state="finished", summary="generated",
            started_at=began, ended_at=began + timedelta(hours=3),
        )
    )  # fmt: skip
    ids = problem_ids(connection, (group[0].row.problem for group in pool[0]))
    groups = max(1, round(size.completions / size.steps / GROUP))
    for name in ORDER:
        share = STAGE_SHARES.get(name)
        length = SFT_STEPS if OTHER_STAGES.get(name) == "sft" else 1
        length = max(1, round(steps * share)) if share else length
        stage_id = _put_stage(connection, run_id, name, length, began)
        if share:
            _write_steps(connection, stage_id, length, groups, pool, ids, rng)
        elif OTHER_STAGES[name] == "sft":
            _write_losses(connection, stage_id, length, rng)
        elif OTHER_STAGES[name] == "curation":
            _write_candidates(connection, stage_id, pool, ids, rng)
    _write_results(connection, run_id, pool, ids, rng)


def _put_stage(connection: Connection, run_id: str, name: str, steps: int, began: datetime) -> int:
    kind = OTHER_STAGES.get(name, "rl")
    return int(
        connection.execute(
            insert(Stages)
            .values(
                run_id=run_id, name=name, kind=kind, key=f"key-{run_id}-{name}", state="finished",
                source_id=None, inputs={}, attributes={"estimator": "dapo"} if kind == "rl" else {},
                total_steps=steps, last_step=steps, output_path="",
                output_digest=f"digest-{run_id}-{name}", seconds=600.0, started_at=began,
                seen_at=began, ended_at=began,
            )
            .returning(Stages.id)
        ).scalar_one()
    )  # fmt: skip


def _write_steps(
    connection: Connection,
    stage_id: int,
    steps: int,
    groups: int,
    pool: Pool,
    ids: dict[Problem, int],
    rng: random.Random,
) -> None:
    """Steps of a stage, a batch of rows at a time."""
    facts: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    numbers: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        skill = min(SKILLS - 1, int(SKILLS * step / (steps + 1)))
        chosen = [rng.choice(pool[skill]) for _ in range(groups)]
        drawn = [member for group in chosen for member in group]
        for place, member in enumerate(drawn):
            where = {
                "stage_id": stage_id, "step": step, "group": place // GROUP, "sample": place % GROUP
            }  # fmt: skip
            problem_id = ids[member.row.problem]
            facts.append(
                {**where, **member.columns, "problem_id": problem_id, "advantage": rng.gauss(0, 1)}
            )
            texts.append({**where, "text": member.row.completion.text})
        values = _metrics(step, steps, [member.row for member in drawn], rng)
        numbers += [
            {"stage_id": stage_id, "step": step, "name": name, "value": value}
            for name, value in values.items()
        ]
        if len(facts) >= BATCH_ROWS or step == steps:
            connection.execute(insert(Rollouts), facts)
            connection.execute(insert(RolloutTexts), texts)
            connection.execute(insert(StepMetrics), numbers)
            facts, texts, numbers = [], [], []


def _metrics(
    step: int, steps: int, drawn: Sequence[Scored], rng: random.Random
) -> dict[str, float]:
    """Those of the completions, and what a trainer would log besides."""
    done = step / steps
    return batch_metrics(drawn) | {
        "groups/dead_right": 0.1 + 0.5 * done,
        "groups/dead_wrong": 0.3 * (1 - done),
        "tokens_per_second": rng.gauss(9000, 400),
        "kl": 0.02 * done + abs(rng.gauss(0, 0.002)),
        "entropy": math.exp(-2 * done) + abs(rng.gauss(0, 0.02)),
        "clip/share": abs(rng.gauss(0.01, 0.004)),
        "loss": rng.gauss(0, 0.05),
        "grad_norm": abs(rng.gauss(0.6, 0.1)),
        "learning_rate": 1e-4,
    }


def _write_losses(connection: Connection, stage_id: int, steps: int, rng: random.Random) -> None:
    rows_of_loss = [
        {"stage_id": stage_id, "step": step, "name": "loss", "value": 2 / step + rng.random() / 10}
        for step in range(1, steps + 1)
    ]
    connection.execute(insert(StepMetrics), rows_of_loss)


def _write_candidates(
    connection: Connection,
    stage_id: int,
    pool: Pool,
    ids: dict[Problem, int],
    rng: random.Random,
) -> None:
    reasons = [*DropReason, DropReason.KEPT, DropReason.KEPT]
    made = []
    for place in range(CANDIDATES):
        member = rng.choice(rng.choice(pool[SKILLS - 1]))
        reason = rng.choice(reasons)
        written = member.row.completion.text
        made.append(
            {
                "stage_id": stage_id,
                "row": place,
                "problem_id": ids[member.row.problem],
                "reason": reason.value,
                "source": "digest-of-a-checkpoint",
                "original": written,
                "rewritten": written if reason is DropReason.KEPT else "",
            }
        )
    connection.execute(insert(CuratedRows), made)


def _write_results(
    connection: Connection, run_id: str, pool: Pool, ids: dict[Problem, int], rng: random.Random
) -> None:
    """The evaluation of every model, and the decision."""
    for place, model in enumerate(MODELS):
        skill = min(SKILLS - 1, place)
        groups = pool[skill][:EVALUATED]
        summary = batch_metrics([member.row for group in groups for member in group])
        summary |= {"pass@1": summary["accuracy"], f"cons@{GROUP}": summary["accuracy"]}
        evaluation_id = connection.execute(
            insert(Evaluations)
            .values(run_id=run_id, model=model, summary=rows.finite(summary),
                    protocol={"samples": GROUP, "temperature": 1.0}, created_at=NEWEST)
            .returning(Evaluations.id)
        ).scalar_one()  # fmt: skip
        connection.execute(insert(EvaluationSamples), list(_evaluated(evaluation_id, groups, ids)))
    connection.execute(
        insert(Decisions).values(
            run_id=run_id, model="r1", candidate_digest="generated", champion_digest="",
            promoted=rng.random() < 0.5, reasons=["generated"], note="", decided_at=NEWEST,
        )
    )  # fmt: skip


def _evaluated(
    evaluation_id: int, groups: Sequence[Sequence[_Drawn]], ids: dict[Problem, int]
) -> Iterator[dict[str, Any]]:
    place = 0
    for group in groups:
        for sample, member in enumerate(group):
            yield {
                "evaluation_id": evaluation_id,
                "row": place,
                "problem_id": ids[member.row.problem],
                "sample": sample,
                "text": member.row.completion.text,
                **member.columns,
            }
            place += 1
