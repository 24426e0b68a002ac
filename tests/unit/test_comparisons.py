"""Views of evaluations, data sets and ancestry, against values that were counted by hand."""

import random

import pytest
from sqlalchemy import Engine

from services import views
from services.artifacts import digest_of
from services.store import open_store
from services.types import (
    Completion,
    CuratedRow,
    DropReason,
    EvaluationSample,
    Problem,
    Score,
    TraceFacts,
    Verdict,
)
from services.views import ancestry, comparisons, datasets
from services.views.datasets import CuratedFilter

RUN = "run"
PROBLEMS = [Problem(f"p{i}", "exact", f"q{i}?", "1", "en", 3 + i % 2) for i in range(8)]


def sample(problem: Problem, place: int, right: bool) -> EvaluationSample:
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    completion = Completion(f"{problem.id}/{place}", (0,) * (5 + place), (), False)
    return EvaluationSample(
        problem,
        place,
        completion,
        Score(verdict, "so", {"accuracy": float(right)}, float(right)),
        TraceFacts(0, 1.0),
    )


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    url = f"sqlite:///{tmp_path_factory.mktemp('views') / 'store.db'}"
    store = open_store(url)
    for run in (RUN, "other"):
        store.begin_run(run, recipe_name="x", recipe_digest="d", seed=0, recipe_json="{}")
    # r1 answers half of the easy level and all of the hard one; base none at all.
    rights = {"base": lambda i, j: False, "r1": lambda i, j: i % 2 == 1 or j == 0}
    for model, right in rights.items():
        rows = [sample(p, j, right(i, j)) for i, p in enumerate(PROBLEMS) for j in range(2)]
        general = Problem("g", "general", "hello", "", "en")
        store.write_evaluation(RUN, model, {}, {}, [*rows, sample(general, 0, True)])
    store.write_evaluation("other", "r1", {}, {}, [sample(PROBLEMS[0], 0, True)])
    curated = [
        CuratedRow(PROBLEMS[i], f"trace {i} 100%", "new" if i < 2 else "", reason, "digest zero")
        for i, reason in enumerate([DropReason.KEPT, DropReason.KEPT, *[DropReason.WRONG] * 3])
    ]
    stages = [
        ("zero", "rl", {"policy": "digest base"}),
        ("cold-start", "curation", {"policy": "digest zero"}),
        ("dev1", "sft", {"policy": "digest base", "data": "digest cold-start"}),
        ("export", "export", {"policy": "digest dev1"}),
    ]
    for name, kind, inputs in stages:
        store.begin_stage(
            RUN, name, kind=kind, key=name, inputs=inputs, total_steps=1, attributes={}
        )
        if kind == "curation":
            store.write_curation(RUN, name, curated)
        store.end_stage(
            RUN, name, "finished", output_path=f"/there/{name}", output_digest=f"digest {name}"
        )
    store.close()
    return views.open_views(url)


def ids(engine: Engine, run: str = RUN) -> dict[str, int]:
    return {row.model: row.id for row in comparisons.measured_models(engine, run)}


def test_accuracy_is_the_mean_over_levels_of_problems(engine: Engine) -> None:
    models = ids(engine)
    found = comparisons.accuracy_estimates(engine, [models["r1"], models["base"]])
    means = {(row.evaluation, row.level): row.mean for row in found}
    assert means[models["r1"], 3] == 0.5
    assert means[models["r1"], 4] == 1.0
    assert means[models["r1"], None] == 0.75
    assert means[models["base"], None] == 0.0
    assert all(0 <= row.lower <= row.mean <= row.upper <= 1 for row in found)
    never = next(row for row in found if (row.evaluation, row.level) == (models["base"], None))
    assert (never.problems, never.lower) == (8, 0.0)
    # Nothing right among eight problems: z² / (n + z²).
    assert never.upper == pytest.approx(1.96**2 / (8 + 1.96**2), abs=1e-3)


def test_the_interval_is_wilsons() -> None:
    # 10 of 40: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96
    lower, upper = comparisons.wilson(0.25, 40)
    assert lower == pytest.approx(0.1419, abs=1e-4)
    assert upper == pytest.approx(0.4019, abs=1e-4)


def test_intervals_cover_what_they_should() -> None:
    """Coverage over simulated problems whose shares of right answers differ."""
    rng = random.Random(5)
    covered = 0
    for _ in range(400):
        shares = [rng.betavariate(2, 2) for _ in range(40)]
        means = [sum(rng.random() < s for _ in range(4)) / 4 for s in shares]
        level = comparisons._Level(3, 40, sum(means), sum(m * m for m in means))
        found = comparisons._estimate(1, None, [level])
        covered += found.lower <= 0.5 <= found.upper
    assert 0.92 <= covered / 400 <= 0.98


def test_a_difference_is_paired(engine: Engine) -> None:
    models = ids(engine)
    found = comparisons.paired_difference(engine, models["r1"], models["base"])
    assert found is not None
    # Every problem of a level differs by the same: no spread, no width.
    assert (found.mean, found.lower, found.upper) == (0.75, 0.75, 0.75)
    assert (found.problems, found.left_ahead, found.right_ahead) == (8, 8, 0)
    other = ids(engine, "other")["r1"]
    lonely = comparisons.paired_difference(engine, models["r1"], other)
    assert lonely is not None
    assert (lonely.problems, lonely.lower, lonely.upper) == (1, -1.0, 1.0)
    assert comparisons.paired_difference(engine, models["r1"], 999) is None


def test_problems_come_page_by_page_in_order(engine: Engine) -> None:
    models = ids(engine)
    arguments = (engine, models["r1"], models["base"])
    pages = [
        comparisons.paired_problems(*arguments, order="left ahead", limit=3, offset=offset)
        for offset in (0, 3, 6)
    ]
    assert [len(page) for page in pages] == [3, 3, 2]
    everything = [row for page in pages for row in page]
    assert [row.left - row.right for row in everything] == [1.0] * 4 + [0.5] * 4
    assert len({row.id for row in everything}) == 8
    for limits in ({}, {"level": 3}, {"language": "en"}, {"level": 3, "language": "zh"}):
        found = comparisons.paired_problems(*arguments, **limits, limit=comparisons.MAX_PAIRS)
        assert comparisons.count_paired_problems(*arguments, **limits) == len(found)
    easy = comparisons.paired_problems(*arguments, level=3)
    assert {row.level for row in easy} == {3}
    assert comparisons.paired_problems(*arguments, language="zh") == []
    assert easy[0].left_tokens == 5.5


def test_answers_of_one_problem(engine: Engine) -> None:
    models = ids(engine)
    first = comparisons.paired_problems(engine, models["r1"], models["base"], level=3)[0]
    assert comparisons.answer_count(engine, models["r1"], first.id) == (2, 1)
    assert comparisons.answer_count(engine, models["r1"], 999) == (0, 0)
    (second,) = comparisons.answers(engine, models["r1"], first.id, limit=1, offset=1)
    assert (second.sample, second.verdict) == (1, "wrong")
    asked = comparisons.problem_of(engine, first.id)
    assert asked is not None
    assert asked.question == first.question


def test_candidates_are_found_by_what_is_known_of_them(engine: Engine) -> None:
    def rows(**wanted: str) -> list[int]:
        found = datasets.curated_rows(engine, RUN, "cold-start", CuratedFilter(**wanted))
        count = datasets.count_curated_rows(engine, RUN, "cold-start", CuratedFilter(**wanted))
        assert count == len(found)
        return [row.row for row in found]

    assert rows() == [0, 1, 2, 3, 4]
    assert rows(reason="wrong answer") == [2, 3, 4]
    assert rows(contains="TRACE 3") == [3]
    assert rows(contains="100%") == [0, 1, 2, 3, 4]
    assert rows(contains="10_%") == []
    assert rows(language="zh") == []
    assert rows(source="somewhere else") == []
    (last,) = datasets.curated_rows(engine, RUN, "cold-start", limit=3, offset=4)
    assert (last.problem, last.rewritten) == ("p4", "")
    examples = datasets.curation_examples(engine, RUN, "cold-start")
    assert [(row.reason, row.row) for row in examples] == [("kept", 0), ("wrong answer", 2)]


def test_a_checkpoint_is_known_by_its_digest(engine: Engine) -> None:
    found = datasets.checkpoints_by_digest(engine, RUN, ["digest zero", "nobody's", ""])
    assert {digest: row.stage for digest, row in found.items()} == {"digest zero": "zero"}


def test_ancestors_are_walked_to_the_base(engine: Engine) -> None:
    line = ancestry.ancestry(engine, "digest dev1")
    assert [row.stage for row in line] == ["dev1", "cold-start", "zero"]
    assert ancestry.ancestry(engine, digest_of("unknown")) == []
    assert ancestry.exports_of(engine, "digest dev1") == ["/there/export"]
    assert ancestry.exports_of(engine, "digest zero") == []
