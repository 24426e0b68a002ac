import random
from pathlib import Path

import pytest
from sqlalchemy import Engine

from services import views
from services.errors import StoreError
from services.store import open_store
from services.types import DropReason, Metrics
from services.views import CompletionFilter
from tests.dashboard import seed


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('views') / 'store.db'}"
    seed.seed_store(url)
    store = open_store(url)
    store.begin_run("second", recipe_name="tiny", recipe_digest="d", seed=1, recipe_json="{}")
    for stage in ("zero", "cold-start", "evaluate", "gate"):
        store.reuse_stage("second", stage, source_run=seed.RUN, key=f"key-of-{stage}")
    store.write_evaluation("second", "r1", {"pass@1": 0.123}, {}, [])
    store.close()
    return url


@pytest.fixture(scope="module")
def engine(url: str) -> Engine:
    return views.open_views(url)


def test_runs_are_listed_newest_first(engine: Engine) -> None:
    runs = views.list_runs(engine)
    assert [run.id for run in runs] == ["second", seed.RUN]
    assert (runs[1].state, runs[1].summary) == ("finished", "r1 was promoted")
    assert runs[1].stages == runs[1].stages_done == len(seed.STAGES)
    assert runs[1].started_at <= runs[1].seen_at
    assert runs[1].silent_seconds >= 0
    assert [run.id for run in views.list_runs(engine, limit=1)] == ["second"]


def test_older_runs_are_listed_page_by_page_or_by_name(engine: Engine) -> None:
    assert views.count_runs(engine) == 2

    def listed(*limits: int, also: tuple[str, ...] = ()) -> list[str]:
        return [run.id for run in views.list_runs(engine, *limits, also=also)]

    assert listed(1, 1) == [seed.RUN]
    assert listed(1, 2) == []
    assert listed(1, also=(seed.RUN, "second", "nobody began this")) == ["second", seed.RUN]
    assert listed(0, also=(seed.RUN,)) == [seed.RUN]


def test_overview_has_the_stages_in_their_order(engine: Engine) -> None:
    run, stages = views.run_overview(engine, seed.RUN)
    assert run.id == seed.RUN
    assert [stage.name for stage in stages] == list(seed.STAGES)
    zero = stages[0]
    assert zero.attributes == {"estimator": "dapo"}
    assert zero.inputs == {"policy": "digest-of-base"}
    assert (zero.last_step, zero.total_steps, zero.progress) == (12, 12, 1.0)
    assert (zero.output_digest, zero.seconds) == ("digest-of-zero", 12.0)


def test_progress_of_a_stage_that_runs(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    store.begin_run("run", recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}")
    for stage, steps in (("zero", 4), ("cold-start", 1)):
        store.begin_stage(
            "run", stage, kind="rl", key=stage, inputs={}, total_steps=steps, attributes={}
        )
    store.write_step("run", "zero", Metrics(1, {"accuracy": 0.5}), [])
    zero, cold_start = views.run_overview(views.open_views(url), "run").stages
    assert zero.progress == 0.25
    assert cold_start.progress is None


def test_a_run_that_is_not_there(engine: Engine) -> None:
    with pytest.raises(StoreError, match="r1 runs"):
        views.run_overview(engine, "nobody")


def test_curves_come_by_stage_name_and_step(engine: Engine) -> None:
    points = views.training_curves(engine, seed.RUN, ["dev1", "zero"], ["loss", "accuracy"])
    assert [(p.stage, p.name) for p in points] == [("zero", "accuracy")] * 12 + [
        ("dev1", "loss")
    ] * 12
    assert [p.step for p in points[:12]] == list(range(1, 13))


def test_long_curves_are_thinned_by_averaging(engine: Engine) -> None:
    whole = views.training_curves(engine, seed.RUN, ["zero"], ["accuracy"])
    thin = views.training_curves(engine, seed.RUN, ["zero"], ["accuracy"], max_points=5)
    assert [p.step for p in thin] == [2, 5, 8, 11, 12]
    by_step = {p.step: p.value for p in whole}
    assert thin[1].value == pytest.approx((by_step[3] + by_step[4] + by_step[5]) / 3)


def test_curves_of_a_reused_stage_are_its_sources(engine: Engine) -> None:
    ask = (["zero"], ["accuracy", "length/mean"])
    own = views.training_curves(engine, seed.RUN, *ask)
    assert own
    assert views.training_curves(engine, "second", *ask) == own


def test_metric_names(engine: Engine) -> None:
    assert views.metric_names(engine, seed.RUN, ["dev1"]) == ["loss"]
    assert {"accuracy", "reward/total", "length/p90"} < set(
        views.metric_names(engine, "second", ["zero"])
    )


def test_nothing_is_found_where_nothing_is(engine: Engine) -> None:
    assert views.training_curves(engine, "nobody", ["zero"], ["accuracy"]) == []
    assert views.metric_names(engine, seed.RUN, []) == []
    assert views.step_samples(engine, seed.RUN, "nothing") == []
    assert views.evaluation_table(engine, "nobody") == []
    assert views.curation_funnel(engine, "nobody", "cold-start") == []
    assert views.decisions(engine, "nobody") == []


def test_completions_can_be_paged(engine: Engine) -> None:
    everything = views.step_samples(engine, seed.RUN, "zero", order="step", limit=200)
    assert len(everything) == 12 * 2 * 4
    places = [(s.step, s.group, s.sample) for s in everything]
    assert places == sorted(places)
    assert (
        views.step_samples(engine, "second", "zero", order="step", limit=5, offset=10)
        == everything[10:15]
    )


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (CompletionFilter(first_step=3, last_step=4), lambda s: s.step in {3, 4}),
        (CompletionFilter(group=1), lambda s: s.group == 1),
        (CompletionFilter(verdict="wrong"), lambda s: s.verdict == "wrong"),
        (CompletionFilter(min_tokens=60), lambda s: s.length_tokens >= 60),
        (CompletionFilter(max_tokens=60), lambda s: s.length_tokens <= 60),
        (CompletionFilter(truncated=False), lambda s: not s.truncated),
        (CompletionFilter(mixed_language=True), lambda s: s.language_share < 1),
        (CompletionFilter(false_claim=True), lambda s: s.false_claim),
        (CompletionFilter(false_claim=False), lambda s: not s.false_claim),
        (CompletionFilter(language="zh"), lambda s: s.question_language == "zh"),
        (
            CompletionFilter(level=5, language="en"),
            lambda s: (s.level, s.question_language) == (5, "en"),
        ),
        (CompletionFilter(contains="AGAIN WAIT"), lambda s: "again wait" in s.text),
        (CompletionFilter(contains="100%"), lambda s: "100%" in s.text),
    ],
)
def test_filters_find_exactly_what_holds(engine: Engine, wanted, holds) -> None:  # type: ignore[no-untyped-def]
    everything = views.step_samples(engine, seed.RUN, "zero", order="step", limit=200)
    expected = [sample for sample in everything if holds(sample)]
    assert views.step_samples(engine, seed.RUN, "zero", wanted, order="step", limit=200) == expected


def test_completions_are_sorted(engine: Engine) -> None:
    longest = views.step_samples(engine, seed.RUN, "zero", order="longest", limit=9)
    lengths = [s.length_tokens for s in longest]
    assert lengths == sorted(lengths, reverse=True)
    worst = views.step_samples(engine, seed.RUN, "zero", order="worst", limit=1)[0]
    best = views.step_samples(engine, seed.RUN, "zero", order="best", limit=1)[0]
    assert worst.total < best.total


def test_no_page_loads_more_than_it_may(engine: Engine) -> None:
    assert len(views.step_samples(engine, seed.RUN, "zero", limit=10**9)) <= 200


def test_evaluations_come_in_the_order_of_the_stages(engine: Engine) -> None:
    table = views.evaluation_table(engine, seed.RUN)
    assert [row.model for row in table] == list(seed.MODELS)
    assert table[0].protocol == {"samples": 16, "temperature": 0.6}
    assert 0 <= table[0].summary["pass@1"] <= 1


def test_own_evaluations_come_before_those_of_the_source(engine: Engine) -> None:
    rows = {row.model: row.summary for row in views.evaluation_table(engine, "second")}
    assert rows["r1"] == {"pass@1": 0.123}
    assert rows["base"] == views.evaluation_table(engine, seed.RUN)[0].summary


def test_funnel_counts_all_candidates_by_reason(engine: Engine) -> None:
    counts = views.curation_funnel(engine, "second", "cold-start")
    assert [count.reason for count in counts] == [reason.value for reason in DropReason]
    assert counts[0].rows == 3
    assert sum(count.rows for count in counts) == len(seed.curated(random.Random(0)))


def test_decisions_follow_the_gate_that_was_reused(engine: Engine) -> None:
    (decision,) = views.decisions(engine, "second")
    assert (decision.model, decision.promoted, decision.note) == ("r1", True, "first champion")
    assert decision.reasons[0] == "pass@1 0.91 ≥ 0.60"


def test_a_stage_that_a_dead_run_left_behind_is_failed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    seed.write_run(store, "run", steps=1)
    store.begin_stage(
        "run", "export", kind="export", key="e", inputs={}, total_steps=1, attributes={}
    )
    engine = views.open_views(url)
    assert views.run_overview(engine, "run").stages[-1].state == "running"
    store.end_run("run", "failed", "interrupted")
    assert views.run_overview(engine, "run").stages[-1].state == "failed"
    assert views.run_overview(engine, "run").stages[0].state == "finished"
