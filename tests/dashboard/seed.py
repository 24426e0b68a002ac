"""Test data: a small store with the shape of a whole run, written through the store's own doors.

Nothing here was trained. Completions are drawn at random with habits that drift over the steps, so
that every chart and every filter has something to show; run ids begin with ``test-data``.
"""

import random
from collections.abc import Sequence

from services.config import Recipe
from services.metrics import Scored, batch_metrics
from services.store import Store, open_store
from services.types import (
    Completion,
    CuratedRow,
    DropReason,
    EvaluationSample,
    Metrics,
    Problem,
    Rollout,
    Score,
    TraceFacts,
    Verdict,
)

RUN = "test-data-s0-5eed5eed"
HOSTILE = (
    "<think> <script>alert('x')</script> ![image](http://localhost/x.png) **bold** "
    "\x1b[31mred\x1b[0m </think> <answer> [link](javascript:alert(1)) </answer>"
)
"""What no page may render."""

EVALUATION_PROBLEMS, EVALUATION_SAMPLES = 12, 2
MODELS = ("base", "r1-zero", "dev1", "dev2", "dev3", "r1", "student", "distill", "student-rl")
STAGES: dict[str, tuple[str, dict[str, str]]] = {
    "zero": ("rl", {"policy": "base"}),
    "cold-start": ("curation", {"policy": "zero"}),
    "dev1": ("sft", {"policy": "base", "data": "cold-start"}),
    "dev2": ("rl", {"policy": "dev1"}),
    "sft-set": ("curation", {"policy": "dev2"}),
    "dev3": ("sft", {"policy": "base", "data": "sft-set"}),
    "preference": ("preference", {"policy": "base", "sampled": "dev3"}),
    "r1": ("rl", {"policy": "dev3", "preference": "preference"}),
    "distill": ("sft", {"policy": "student", "data": "sft-set"}),
    "student-rl": ("rl", {"policy": "student"}),
    "evaluate": (
        "evaluation",
        {"base": "base", "r1-zero": "zero", "dev1": "dev1", "dev2": "dev2", "dev3": "dev3",
         "r1": "r1", "student": "student", "distill": "distill", "student-rl": "student-rl"},
    ),
    "gate": ("gate", {"candidate": "r1"}),
}  # fmt: skip


def problem(rng: random.Random) -> Problem:
    """A question that looks like countdown."""
    level = rng.choice((3, 4, 5, 6))
    numbers = " ".join(str(rng.randint(1, 9)) for _ in range(level))
    target = str(rng.randint(1, 30))
    language = rng.choice(("en", "zh"))
    question = (
        f"make {target} from {numbers}" if language == "en" else f"用 {numbers} 得到 {target}"
    )
    return Problem(f"test-{numbers}-{target}", "countdown", question, target, language, level)


def scored(rng: random.Random, asked: Problem, skill: float, text: str | None = None) -> Scored:
    """A completion of someone with this skill, 0…1; the more skilled, the longer the search."""
    attempts = 1 + int(rng.expovariate(1.0) * (1 + 4 * skill))
    correct = rng.random() < 0.3 + 0.6 * skill
    words = ["wait", ",", "try", "again"] * attempts
    text = text or f"<think> try {' '.join(words)} </think> <answer> {asked.gold} </answer>"
    share = min(1.0, 0.55 + 0.4 * rng.random())
    parts = {"accuracy": float(correct), "format": float(rng.random() < 0.9 + 0.1 * skill)}
    parts["language"] = share
    verdict = Verdict.CORRECT if correct else Verdict.WRONG
    tokens = min(224, 12 + 14 * attempts + rng.randint(0, 9))
    return Scored(
        asked,
        Completion(text, tuple(range(tokens)), (), truncated=tokens == 224),
        Score(verdict, "as expected" if correct else "another value", parts, sum(parts.values())),
        TraceFacts(
            reflective_words=attempts,
            language_share=share,
            gave_up=not correct and rng.random() > skill,
            attempts=attempts,
            repeated_attempts=int(attempts > 4),
            steps=3 * attempts,
            slips=int(rng.random() < 0.1),
            false_claim=not correct and rng.random() < 0.2,
        ),
    )


def rollouts(rng: random.Random, groups: int, members: int, skill: float) -> list[Rollout]:
    """The completions of one step; the question of the first group is the same at every step."""
    made = []
    for group in range(groups):
        asked = problem(rng) if group else problem(random.Random(5))
        rows = [scored(rng, asked, skill) for _ in range(members)]
        rewards = [row.score.total for row in rows]
        mean = sum(reward for reward in rewards if reward is not None) / members
        made += [
            Rollout(asked, row.completion, row.score, row.facts, group, place, reward - mean)
            for place, (row, reward) in enumerate(zip(rows, rewards, strict=True))
            if reward is not None
        ]
    return made


def metrics_of(step: int, rows: Sequence[Rollout]) -> Metrics:
    """What the trainer would log of these."""
    values = batch_metrics([Scored(r.problem, r.completion, r.score, r.facts) for r in rows])
    return Metrics(step, values | {"entropy": 1.0 / step, "grad_norm": 0.5, "learning_rate": 1e-4})


def seed_store(url: str, *, steps: int = 12, groups: int = 2, members: int = 4) -> None:
    """Write a finished run."""
    store = open_store(url)
    write_run(store, RUN, steps=steps, groups=groups, members=members)
    store.end_run(RUN, "finished", "r1 was promoted")
    store.close()


def write_run(
    store: Store, run_id: str, *, steps: int, groups: int = 2, members: int = 4, seed: int = 0
) -> None:
    """Write all stages of a run, and leave the run running."""
    rng = random.Random(7 + seed)
    _begin_run(store, run_id, "test-data", seed)
    for stage, (kind, _) in STAGES.items():
        _begin_stage(store, run_id, stage, steps)
        for step in range(1, steps + 1):
            if kind == "rl":
                rows = rollouts(rng, groups, members, step / steps)
                store.write_step(run_id, stage, metrics_of(step, rows), rows)
            elif kind == "sft":
                loss = 2.0 / step + rng.random() / 10
                store.write_step(run_id, stage, Metrics(step, {"loss": loss}), [])
        if kind == "curation":
            store.write_curation(run_id, stage, curated(rng))
        if kind == "evaluation":
            for place, model in enumerate(MODELS):
                write_evaluation(store, run_id, model, place / len(MODELS), rng)
        if kind == "gate":
            store.write_decision(
                run_id,
                "r1",
                candidate_digest="digest-of-r1",
                champion_digest="",
                promoted=True,
                reasons=["pass@1 0.91 ≥ 0.60", "language 0.99 ≥ 0.97"],
                note="first champion",
            )
        store.end_stage(run_id, stage, "finished", output_digest=f"digest-of-{stage}", seconds=12.0)


def _begin_run(store: Store, run_id: str, name: str, seed: int = 0) -> None:
    recipe = Recipe(name=name, seed=seed)
    store.begin_run(
        run_id,
        recipe_name=name,
        recipe_digest="5eed" * 16,
        seed=seed,
        recipe_json=recipe.model_dump_json(),
    )


def _begin_stage(store: Store, run_id: str, stage: str, steps: int) -> None:
    kind, inputs = STAGES[stage]
    store.begin_stage(
        run_id,
        stage,
        kind=kind,
        key=f"key-of-{stage}",
        inputs={role: f"digest-of-{name}" for role, name in inputs.items()},
        total_steps=steps if kind in {"rl", "sft"} else 1,
        attributes={"estimator": "dapo"} if kind == "rl" else {},
    )


def curated(rng: random.Random) -> list[CuratedRow]:
    """Candidates of a data set, one for each way to end and a few kept."""
    reasons = [*DropReason, DropReason.KEPT, DropReason.KEPT]
    rows = []
    for reason in reasons:
        row = scored(rng, problem(rng), 0.5)
        text = row.completion.text
        kept = text if reason is DropReason.KEPT else ""
        rows.append(CuratedRow(row.problem, text, kept, reason, "digest-of-zero"))
    return rows


def write_evaluation(
    store: Store, run_id: str, model: str, skill: float, rng: random.Random
) -> None:
    """Measure a model of this skill: every model answers the same problems."""
    asked = random.Random(11)
    problems = [problem(asked) for _ in range(EVALUATION_PROBLEMS)]
    rows = [scored(rng, of, skill) for of in problems for _ in range(EVALUATION_SAMPLES)]
    values = batch_metrics(rows)
    levels = {name: value for name, value in values.items() if name.startswith("accuracy/level")}
    summary = values | {
        "pass@1": values["accuracy"],
        "cons@16": min(1.0, values["accuracy"] + 0.1),
        "helpfulness": 0.4 + skill / 2,
        "safety": 0.5 + skill / 2,
        **{name.replace("accuracy", "pass@1"): value for name, value in levels.items()},
    }
    samples = [
        EvaluationSample(
            row.problem, place % EVALUATION_SAMPLES, row.completion, row.score, row.facts
        )
        for place, row in enumerate(rows)
    ]
    store.write_evaluation(run_id, model, summary, {"samples": 16, "temperature": 0.6}, samples)


def begin_live_run(store: Store, run_id: str) -> None:
    """A run whose first stage has begun and made no step."""
    _begin_run(store, run_id, "test-data-live")
    _begin_stage(store, run_id, "zero", steps=9)


def go_on(store: Store, run_id: str, step: int) -> None:
    """Another step of a run's first stage; with the first one, a model is measured."""
    rng = random.Random(step)
    rows = rollouts(rng, 2, 4, 0.5)
    store.write_step(run_id, "zero", metrics_of(step, rows), rows)
    if step == 1:
        _begin_stage(store, run_id, "evaluate", steps=1)
        write_evaluation(store, run_id, "base", 0.1, rng)


HOSTILE_RUN = "test-data-hostile-s0-5eed5eed"


def write_hostile_run(store: Store) -> None:
    """A run in which everything that a model, a problem or a person wrote is hostile."""
    _begin_run(store, HOSTILE_RUN, "test-data-hostile")
    (row,) = hostile_rollouts()
    text = f"{HOSTILE} \0 </code>"
    for name, (kind, _) in STAGES.items():
        _begin_stage(store, HOSTILE_RUN, name, steps=2)
        if kind == "rl":
            for step in (1, 2):
                store.write_step(HOSTILE_RUN, name, metrics_of(step, [row]), [row])
        if kind == "curation":
            kept = CuratedRow(row.problem, text, f"{text} good", DropReason.KEPT, "digest-of-zero")
            store.write_curation(HOSTILE_RUN, name, [kept])
        store.end_stage(HOSTILE_RUN, name, "finished", seconds=1.0)
    sample = EvaluationSample(row.problem, 0, row.completion, row.score, row.facts)
    values = batch_metrics([Scored(row.problem, row.completion, row.score, row.facts)])
    for model in ("base", "r1-zero", "r1"):
        summary = {**values, "pass@1": 0.0, "cons@16": 0.0}
        store.write_evaluation(HOSTILE_RUN, model, summary, {"samples": 1}, [sample])
    store.write_decision(
        HOSTILE_RUN,
        "r1",
        candidate_digest="digest-of-r1",
        champion_digest="",
        promoted=False,
        reasons=[HOSTILE],
        note=HOSTILE,
    )
    store.end_run(HOSTILE_RUN, "finished", HOSTILE)


def hostile_rollouts() -> list[Rollout]:
    """A step whose completion, question and reason try to be more than text."""
    rng = random.Random(3)
    asked = Problem("test-hostile", "countdown", f"# {HOSTILE}", "1", "en", 3)
    row = scored(rng, asked, 0.5, HOSTILE)
    score = Score(Verdict.WRONG, HOSTILE, row.score.parts, row.score.total)
    return [Rollout(asked, row.completion, score, row.facts, 0, 0, 0.0)]
