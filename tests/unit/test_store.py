import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select

from services import views
from services.store import StageRef, Store, open_store
from services.store.schema import (
    Base,
    CuratedRows,
    EvaluationSamples,
    HeldOutSamples,
    Problems,
    Rollouts,
    RolloutTexts,
    StepMetrics,
)
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

RUN = "tiny-s0-12345678"
SUM = Problem("p1", "countdown", "make 8 from 3 5", "8 = 3 5", "en", 2)
TALK = Problem("p2", "general", "hello", "", "zh")


def rollout(sample: int, text: str = "<think> 3 +5 =8 </think>", problem: Problem = SUM) -> Rollout:
    return Rollout(
        problem,
        Completion(text, (1, 2, 3), (-0.1, -0.2, -0.3), truncated=False),
        Score(Verdict.CORRECT, "8 = 8", {"accuracy": 1.0, "format": 0.5, "safety": 0.25}, 1.75),
        TraceFacts(2, 0.5, attempts=3, repeated_attempts=1, steps=4, slips=1, false_claim=True),
        group=0,
        sample=sample,
        advantage=0.5,
    )


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'store.db'}"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return url_of(tmp_path)


@pytest.fixture
def store(url: str) -> Store:
    store = open_store(url)
    begin(store, RUN, "zero")
    return store


def begin(store: Store, run: str, stage: str, key: str = "key", total_steps: int = 10) -> None:
    store.begin_run(run, recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}")
    store.begin_stage(
        run,
        stage,
        kind="rl",
        key=key,
        inputs={"policy": "digest-of-base"},
        total_steps=total_steps,
        attributes={"estimator": "dapo"},
    )


def count(url: str, table: type[Base]) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(select(func.count()).select_from(table)).scalar_one()
    engine.dispose()
    return rows


def test_searched_tables_lie_in_the_order_they_are_asked_for(store: Store, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "store.db") as connection:
        made = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
    connection.close()
    assert "WITHOUT ROWID" in made["rollouts"]
    assert "WITHOUT ROWID" in made["step_metrics"]
    assert "WITHOUT ROWID" not in made["rollout_texts"]


def test_a_rollout_comes_back_whole(store: Store, url: str) -> None:
    store.write_step(RUN, "zero", Metrics(1, {"accuracy": 1.0}), [rollout(0)])
    (found,) = views.step_samples(views.open_views(url), RUN, "zero")
    assert found == views.Completion(
        stage="zero",
        step=1,
        group=0,
        sample=0,
        problem="p1",
        kind="countdown",
        question="make 8 from 3 5",
        gold="8 = 3 5",
        question_language="en",
        level=2,
        text="<think> 3 +5 =8 </think>",
        verdict="correct",
        reason="8 = 8",
        total=1.75,
        parts={"accuracy": 1.0, "format": 0.5, "safety": 0.25},
        advantage=0.5,
        length_tokens=3,
        truncated=False,
        language_share=0.5,
        reflective_words=2,
        gave_up=False,
        attempts=3,
        repeated_attempts=1,
        slips=1,
        false_claim=True,
    )


def test_a_step_written_again_replaces_itself(store: Store, url: str) -> None:
    store.write_step(
        RUN, "zero", Metrics(1, {"accuracy": 0.1, "kl": 0.2}), [rollout(0), rollout(1)]
    )
    store.write_step(RUN, "zero", Metrics(2, {"accuracy": 0.3}), [rollout(0)])
    store.write_step(RUN, "zero", Metrics(1, {"accuracy": 0.9}), [rollout(0, "again")])
    engine = views.open_views(url)
    assert [
        (p.name, p.step, p.value)
        for p in views.training_curves(engine, RUN, ["zero"], ["accuracy", "kl"])
    ] == [
        ("accuracy", 1, 0.9),
        ("accuracy", 2, 0.3),
    ]
    assert [s.text for s in views.step_samples(engine, RUN, "zero", order="step")] == [
        "again",
        "<think> 3 +5 =8 </think>",
    ]
    assert count(url, RolloutTexts) == count(url, Rollouts) == 2
    (stage,) = views.run_overview(engine, RUN).stages
    assert stage.last_step == 2


def test_a_resumed_stage_forgets_later_steps(store: Store, url: str) -> None:
    for step in range(1, 6):
        store.write_step(RUN, "zero", Metrics(step, {"accuracy": 0.1}), [rollout(0)])
    store.truncate_steps(RUN, "zero", after_step=3)
    assert count(url, StepMetrics) == count(url, Rollouts) == count(url, RolloutTexts) == 3
    assert views.run_overview(views.open_views(url), RUN).stages[0].last_step == 3
    store.truncate_steps(RUN, "zero", after_step=99)
    assert views.run_overview(views.open_views(url), RUN).stages[0].last_step == 3


def test_held_out_answers_go_with_their_step(store: Store, url: str) -> None:
    for step in range(1, 6):
        row = rollout(0, f"held out, step {step}")
        sample = EvaluationSample(row.problem, 0, row.completion, row.score, row.facts)
        asked = [sample, sample] if step % 2 else []
        store.write_step(RUN, "zero", Metrics(step, {"accuracy": 0.1}), [rollout(0)], asked)
    store.write_step(RUN, "zero", Metrics(1, {"accuracy": 0.9}), [], [sample])
    assert count(url, HeldOutSamples) == 1 + 2 + 2
    store.truncate_steps(RUN, "zero", after_step=4)
    assert count(url, HeldOutSamples) == 1 + 2
    (question,) = views.repeated_questions(views.open_views(url), RUN, "zero")
    assert question.times == 2, "steps 1 and 3; the rollouts ask at more of them"
    ask = (views.open_views(url), RUN, "zero", question.problem)
    assert [answers.step for answers in views.answers_by_step(*ask)] == [1, 3]
    third = views.answer_at_step(*ask, 3, 1)
    assert third is not None
    assert third.text == "held out, step 3"
    assert views.answer_at_step(*ask, 3, 2) is None


def test_problems_are_stored_once(store: Store, url: str) -> None:
    store.write_step(RUN, "zero", Metrics(1), [rollout(0), rollout(1), rollout(2, problem=TALK)])
    store.write_step(RUN, "zero", Metrics(2), [rollout(0)])
    assert count(url, Problems) == 2


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a\0b", "a\\x00b"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
        ("等等 , 🙂 \x1b[31m\r\n", "等等 , 🙂 \x1b[31m\r\n"),
        ("", ""),
    ],
)
def test_any_text_can_be_stored(store: Store, url: str, written: str, read: str) -> None:
    store.write_step(RUN, "zero", Metrics(1), [rollout(0, written)])
    (found,) = views.step_samples(views.open_views(url), RUN, "zero")
    assert found.text == read


def test_a_number_that_is_not_finite_is_kept_as_a_gap(store: Store, url: str) -> None:
    values = {"loss": float("nan"), "kl": float("inf"), "accuracy": 0.0}
    store.write_step(RUN, "zero", Metrics(1, values), [])
    points = views.training_curves(views.open_views(url), RUN, ["zero"], list(values))
    assert {p.name: p.value for p in points} == {"loss": None, "kl": None, "accuracy": 0.0}


def test_a_run_and_a_stage_may_begin_again(store: Store, url: str) -> None:
    store.end_stage(RUN, "zero", "failed", seconds=3.0)
    store.end_run(RUN, "failed", "it broke")
    begin(store, RUN, "zero", total_steps=20)
    run, (stage,) = views.run_overview(views.open_views(url), RUN)
    assert (run.state, run.summary, run.ended_at) == ("running", "", None)
    assert (stage.state, stage.total_steps, stage.attributes) == (
        "running",
        20,
        {"estimator": "dapo"},
    )


def test_the_latest_finished_stage_of_a_key_is_found(store: Store) -> None:
    assert store.finished_stage("key") is None
    store.end_stage(RUN, "zero", "finished")
    assert store.finished_stage("key") == StageRef(RUN, "zero")
    begin(store, "other", "zero")
    assert store.finished_stage("key") == StageRef(RUN, "zero")
    store.end_stage("other", "zero", "finished")
    assert store.finished_stage("key") == StageRef("other", "zero")


def test_a_reused_stage_has_its_source(store: Store, url: str) -> None:
    store.end_stage(RUN, "zero", "finished", output_digest="z", seconds=9.0)
    for run, source in (("second", RUN), ("third", "second")):
        store.begin_run(run, recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}")
        store.reuse_stage(run, "zero", source_run=source, key="key")
    (stage,) = views.run_overview(views.open_views(url), "third").stages
    assert (stage.state, stage.source_run, stage.output_digest) == ("reused", RUN, "z")
    assert (stage.seconds, stage.progress) == (0.0, 1.0)


def test_a_stage_that_did_the_work_itself_keeps_its_rows(store: Store, url: str) -> None:
    store.write_step(RUN, "zero", Metrics(1, {"accuracy": 0.5}), [rollout(0)])
    store.end_stage(RUN, "zero", "finished")
    begin(store, "other", "zero")
    store.end_stage("other", "zero", "finished")
    store.reuse_stage(RUN, "zero", source_run="other", key="key")
    assert count(url, Rollouts) == 1
    assert views.run_overview(views.open_views(url), RUN).stages[0].state == "finished"


def test_reusing_what_is_not_there_is_a_bug(store: Store) -> None:
    with pytest.raises(Exception, match="No row was found"):
        store.reuse_stage("other", "zero", source_run="nobody", key="key")


def test_curation_evaluation_and_decision_replace_themselves(store: Store, url: str) -> None:
    rows = [
        CuratedRow(SUM, "o", "r", DropReason.KEPT, "z"),
        CuratedRow(SUM, "o", "", DropReason.WRONG, "z"),
    ]
    one = rollout(0)
    sample = EvaluationSample(SUM, 0, one.completion, one.score, one.facts)
    for attempt in (0.1, 0.2):
        store.write_curation(RUN, "zero", rows)
        store.write_evaluation(RUN, "base", {"pass@1": attempt}, {"samples": 16}, [sample, sample])
        store.write_decision(
            RUN, "r1", candidate_digest="c", champion_digest="", promoted=attempt > 0.1,
            reasons=[f"pass@1 {attempt}"], note="",
        )  # fmt: skip
    engine = views.open_views(url)
    assert count(url, CuratedRows) == count(url, EvaluationSamples) == 2
    assert [row.summary for row in views.evaluation_table(engine, RUN)] == [{"pass@1": 0.2}]
    assert [(d.promoted, d.reasons) for d in views.decisions(engine, RUN)] == [
        (True, ["pass@1 0.2"])
    ]
    store.write_curation(RUN, "zero", [])
    assert count(url, CuratedRows) == 0


def test_a_failed_write_leaves_nothing(store: Store, url: str) -> None:
    twice = [rollout(0), rollout(0)]
    with pytest.raises(Exception, match="UNIQUE"):
        store.write_step(RUN, "zero", Metrics(1, {"accuracy": 1.0}), twice)
    assert count(url, StepMetrics) == count(url, Rollouts) == count(url, Problems) == 0


def test_two_writers_wait_for_each_other(store: Store, url: str) -> None:
    def write(name: str) -> None:
        own = open_store(url)
        begin(own, name, "zero")
        for step in range(1, 11):
            own.write_step(name, "zero", Metrics(step, {"accuracy": 1.0}), [rollout(0)])
        own.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(url, Rollouts) == 20
