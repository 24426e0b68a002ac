from statistics import fmean

import pytest
from sqlalchemy import Engine

from services import views
from services.config import Recipe
from services.store import open_store
from services.store.ledger import Promotion, open_ledger
from services.views import CompletionFilter
from tests.dashboard import seed


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    url = f"sqlite:///{tmp_path_factory.mktemp('history') / 'store.db'}"
    store = open_store(url)
    for number in range(3):
        seed.write_run(store, f"run-{number}", steps=6, seed=number)
    store.begin_run("other", recipe_name="t", recipe_digest="d", seed=0, recipe_json='{"a": 1}')
    for stage in ("zero", "evaluate", "gate"):
        store.reuse_stage("other", stage, source_run="run-0", key=f"key-of-{stage}")
    store.close()
    return views.open_views(url)


def completions(engine: Engine, **wanted: object) -> list[views.Completion]:
    asked = CompletionFilter(**wanted)  # type: ignore[arg-type]
    return views.step_samples(engine, "run-0", "zero", asked, order="step", limit=1000)


def test_a_question_asked_at_every_step_is_found(engine: Engine) -> None:
    (question, *others) = views.repeated_questions(engine, "run-0", "zero")
    assert question.times == 6
    assert others == []
    assert views.repeated_questions(engine, "other", "zero") == [question]
    assert views.repeated_questions(engine, "run-0", "nothing") == []


def test_its_answers_by_step_are_those_of_the_completions(engine: Engine) -> None:
    (question,) = views.repeated_questions(engine, "run-0", "zero")
    found = views.answers_by_step(engine, "run-0", "zero", question.problem)
    assert [answers.step for answers in found] == [1, 2, 3, 4, 5, 6]
    for answers in found:
        rows = completions(
            engine, first_step=answers.step, last_step=answers.step, problem=question.problem
        )
        assert answers.samples == len(rows) == 4
        assert answers.right == fmean(row.verdict == "correct" for row in rows)
        assert answers.mean_tokens == fmean(row.length_tokens for row in rows)
        ask = (engine, "run-0", "zero", question.problem, answers.step)
        texts = [views.answer_at_step(*ask, number).text for number in range(4)]  # type: ignore[union-attr]
        assert texts == [row.text for row in rows]
        assert views.answer_at_step(*ask, 4) is None


def test_held_out_questions_are_followed_through_the_models(engine: Engine) -> None:
    questions = views.held_out_questions(engine, "run-0")
    assert {question.times for question in questions} == {len(seed.MODELS)}
    assert [q.level for q in questions] == sorted((q.level for q in questions), reverse=True)
    question = questions[0]
    found = views.answers_by_model(engine, "run-0", question.problem)
    assert [answers.model for answers in found] == list(seed.MODELS)
    assert views.answers_by_model(engine, "other", question.problem) == found
    answer = views.answer_of_model(engine, "run-0", "r1", question.problem)
    assert answer is not None
    assert answer.text.startswith("<think>")
    assert views.answer_of_model(engine, "run-0", "nobody", question.problem) is None
    assert views.held_out_questions(engine, "nobody") == []


def test_seeds_are_averaged_step_by_step(engine: Engine) -> None:
    runs = ["run-0", "run-1", "run-2"]
    whole = [views.training_curves(engine, run, ["zero"], ["accuracy"]) for run in runs]
    found = views.seed_curves(engine, runs, ["zero"], ["accuracy"])
    assert [point.step for point in found] == [1, 2, 3, 4, 5, 6]
    for place, point in enumerate(found):
        values = [curve[place].value for curve in whole]
        assert point.value == pytest.approx(fmean(values))  # type: ignore[type-var]
        assert (point.low, point.high) == (min(values), max(values))  # type: ignore[type-var]
    thin = views.seed_curves(engine, runs, ["zero"], ["accuracy"], max_points=3)
    assert [point.step for point in thin] == [2, 5, 6]
    assert views.seed_curves(engine, ["nobody"], ["zero"], ["accuracy"]) == []


def test_what_came_of_runs_and_of_one_that_took_its_result_from_another(engine: Engine) -> None:
    found = views.outcomes(engine, ["run-0", "run-1", "other", "nobody"])
    assert set(found) == {"run-0", "run-1", "other"}
    (r1,) = [row for row in views.evaluation_table(engine, "run-0") if row.model == "r1"]
    assert found["run-0"] == ("r1", True, r1.summary)
    assert found["other"] == found["run-0"] != found["run-1"]


def test_runs_of_one_recipe_differ_in_the_seed_alone(engine: Engine) -> None:
    found = views.same_recipe(engine, ["run-0", "run-1", "other", "nobody"])
    assert found["run-0"] == found["run-1"] != found["other"]
    assert "nobody" not in found


def test_completions_are_counted_and_bounded(engine: Engine) -> None:
    everything = completions(engine)
    assert views.count_samples(engine, "run-0", "zero") == len(everything) == 48
    wanted = {"part": "language", "min_part": 0.7, "below_part": 0.9}
    expected = [row for row in everything if 0.7 <= row.parts["language"] < 0.9]  # type: ignore[operator]
    assert completions(engine, **wanted) == expected
    filters = CompletionFilter(**wanted)  # type: ignore[arg-type]
    assert views.count_samples(engine, "run-0", "zero", filters) == len(expected) > 0
    with pytest.raises(ValueError, match="no part"):
        completions(engine, part="text", min_part=0.0)


@pytest.mark.parametrize("part", ["total", "language", "accuracy"])
@pytest.mark.parametrize("filters", [{}, {"verdict": "wrong"}, {"contains": "wait"}])
def test_each_bar_of_a_histogram_holds_what_a_filter_by_its_ends_finds(
    engine: Engine, part: str, filters: dict[str, str]
) -> None:
    wanted = CompletionFilter(**filters, part=part)
    bars = views.reward_histogram(engine, "run-0", "zero", wanted)
    assert sum(bar.completions for bar in bars) == views.count_samples(
        engine, "run-0", "zero", wanted
    )
    assert bars == sorted(bars)
    for bar in bars:
        inside = wanted._replace(min_part=bar.lower, below_part=bar.upper)
        assert views.count_samples(engine, "run-0", "zero", inside) == bar.completions > 0
        assert views.reward_histogram(engine, "run-0", "zero", inside) == bars


def test_a_histogram_has_edges_that_people_can_read(engine: Engine) -> None:
    edges = [bar[:2] for bar in views.reward_histogram(engine, "run-0", "zero", width=0.5)]
    assert edges[0][1] - edges[0][0] == 0.5
    assert all(lower % 0.5 == 0 for lower, _ in edges)
    wanted = CompletionFilter(part="accuracy")
    assert [bar[:2] for bar in views.reward_histogram(engine, "run-0", "zero", wanted)] == [
        (0.0, 0.1),
        (1.0, 1.1),
    ]
    assert views.reward_histogram(engine, "run-0", "nobody", wanted) == []


def test_words_are_searched_in_the_first_completions_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.views.completions.SEARCHED", 10)
    wanted = CompletionFilter(contains="try")
    assert views.count_samples(engine, "run-0", "zero", wanted) == 10
    latest = views.step_samples(engine, "run-0", "zero", wanted, order="latest", limit=100)
    assert latest == views.step_samples(engine, "run-0", "zero", order="latest", limit=10)


def test_what_the_parts_of_a_reward_weigh(engine: Engine) -> None:
    recipe = Recipe(name="test-data")
    assert views.reward_weights(engine, "run-0", "dev2") == recipe.dev2.weights.model_dump()
    assert views.reward_weights(engine, "other", "zero") == {}
    assert views.reward_weights(engine, "nobody", "zero") == {}


def test_the_champion_is_the_last_entry_of_the_ledger(engine: Engine) -> None:
    assert views.champions(engine) == []
    ledger = open_ledger(str(engine.url))
    at = views.list_runs(engine)[0].started_at
    ledger.append(Promotion("r1", 1, "promote", 3, None, "ada", "first", at))
    ledger.append(Promotion("r1", 2, "rollback", 2, 1, "bob", "worse", at))
    ledger.append(Promotion("distill", 1, "promote", 9, None, "ada", "", at))
    found = views.champions(engine)
    assert [(c.model, c.version, c.who, c.times) for c in found] == [
        ("distill", 9, "ada", 1),
        ("r1", 2, "bob", 2),
    ]
