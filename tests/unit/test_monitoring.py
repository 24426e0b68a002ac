"""Monitoring: how often an unchanged champion raises an alarm, and what a worse one does."""

import json
import random
from types import SimpleNamespace

import pytest

from services import views
from services.errors import RegistryError
from services.gates import Answer
from services.monitoring import compare, recheck
from services.policies import Monitoring
from services.recipes import load_recipe
from services.store import open_store
from services.types import (
    Completion,
    EvaluationSample,
    Judgement,
    Problem,
    Score,
    TraceFacts,
    Verdict,
)

LIMITS = Monitoring()
STRICT = Monitoring(
    confidence=0.95,
    max_accuracy_drop=0.0,
    max_language_drop=0.0,
    max_format_failures=0.0,
    max_length_change=1e-9,
)


def answers(rng, accuracy=0.8, language=0.97, well_formed=0.99, length=60.0, per_level=16):
    """One model's answers on problems of four levels, 8 completions of each."""
    found = {"pass@1": {}, "language/consistency": {}, "format": {}, "length/mean": {}}
    for level in (3, 4, 5, 6):
        for n in range(per_level):
            hard = min(1.0, max(0.0, rng.gauss(accuracy - 0.05 * (level - 3), 0.15)))
            share = sum(rng.random() < hard for _ in range(8)) / 8
            form = sum(rng.random() < well_formed for _ in range(8)) / 8
            words = min(1.0, rng.gauss(language, 0.02))
            row = (share, words, form, rng.gauss(length + 10 * level, 15))
            for name, value in zip(found, row, strict=True):
                found[name][f"{level}-{n}"] = Answer(level, value)
    return found


def alarms_of(baseline, fresh, limits=LIMITS):
    return [change.name for change in compare(baseline, fresh, limits) if change.alarm]


def test_an_unchanged_champion_raises_an_alarm_no_more_often_than_said():
    rng = random.Random(5)
    raised = sum(
        bool(alarms_of(answers(rng, per_level=12), answers(rng, per_level=12), STRICT))
        for _ in range(300)
    )
    assert raised / 300 <= 0.08  # 0.05 is meant; two standard errors of the count are 0.025


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"accuracy": 0.5}, ["accuracy"]),
        ({"language": 0.8}, ["language"]),
        ({"well_formed": 0.7}, ["format"]),
        ({"length": 160.0}, ["longer"]),
        ({"length": 5.0}, ["shorter"]),
        ({"accuracy": 0.95, "well_formed": 1.0}, []),
        ({"accuracy": 0.78}, []),
    ],
)
def test_a_change_beyond_what_is_tolerated_is_named(change, names):
    rng = random.Random(7)
    assert alarms_of(answers(rng), answers(rng, **change)) == names


def test_the_arithmetic_written_out():
    rows = {"a": Answer(3, 1.0), "b": Answer(3, 0.5), "c": Answer(4, 1.0), "d": Answer(4, 1.0)}
    worse = {"a": Answer(3, 0.5), "b": Answer(3, 0.0), "c": Answer(4, 0.5), "d": Answer(4, 0.5)}
    change = compare({"pass@1": rows}, {"pass@1": worse}, Monitoring(confidence=0.95))[0]
    # level 3: 0.75 → 0.25, variance 0.125 on both sides; level 4: 1 → 0.5, no spread
    error = ((0.125 / 2 + 0.125 / 2) ** 0.5) / 2
    z = 2.3263478740408408  # 1 − 0.05 / 5
    assert change.worse_by == pytest.approx(0.5)
    assert change.at_least == pytest.approx(0.5 - z * error)
    assert (change.baseline, change.now, change.alarm) == (0.875, 0.375, True)


def test_a_level_with_one_problem_proves_nothing():
    one = {"pass@1": {"a": Answer(3, 1.0)}}
    assert alarms_of(one, {"pass@1": {"b": Answer(3, 0.0)}}) == []


def samples(accuracy, count=24):
    facts = TraceFacts(0, 1.0)
    for n in range(count):
        right = n < accuracy * count
        verdict = Verdict.CORRECT if right else Verdict.WRONG
        score = Score(*Judgement(verdict, ""), {"accuracy": float(right), "format": 1.0}, 1.0)
        problem = Problem(f"p{n}", "math", f"{accuracy} {n} ?", "1", "en", level=n % 2 + 3)
        yield EvaluationSample(problem, 0, Completion("x", (1, 2), (), False), score, facts)


@pytest.fixture
def url(tmp_path):
    address = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(address)
    recipe = load_recipe("tiny")
    store.begin_run(
        "tiny-s0",
        recipe_name="tiny",
        recipe_digest="d",
        seed=0,
        recipe_json=recipe.model_dump_json(),
    )
    protocol = recipe.evaluation.model_dump(mode="json")
    store.write_evaluation("tiny-s0", "r1", {"pass@1": 1.0}, protocol, list(samples(1.0)))
    store.close()
    return address


class Line:
    """A registry with one champion."""

    def __init__(self, number):
        self.number = number

    def head(self, model):
        return SimpleNamespace(champion=6) if model == "r1" else None

    def version(self, model, number):
        tags = {"pipeline": "tiny-s0"}
        ids = (self.number,) if self.number else ()
        return SimpleNamespace(model=model, number=number, tags=tags, evaluation_ids=ids)

    def resolve(self, uri):
        return uri


def check(url, tmp_path, accuracy, told=None):
    seen = []

    def measure(folder, recipe, settings):
        seen.append((folder, settings))
        return SimpleNamespace(summary={"pass@1": accuracy}, samples=list(samples(accuracy)))

    number = views.evaluation_ids(views.open_views(url), "tiny-s0")["r1"]
    told = [] if told is None else told
    return recheck(tmp_path, url, Line(number), "r1", told.append, measure), seen[0]


def test_a_worse_champion_is_told_everywhere_and_each_check_asks_anew(url, tmp_path):
    told = []
    well, (folder, first) = check(url, tmp_path, 1.0, told)
    assert (well.alarms, told, well.number) == ((), [], 1)
    assert folder == "models:/r1/6"
    worse, (_, second) = check(url, tmp_path, 0.5, told)
    assert [change.name for change in worse.alarms] == ["accuracy"]
    assert (worse.number, worse.run_id) == (2, "monitor-r1-v6")
    assert first.seed != second.seed
    assert first.problems_per_level == LIMITS.problems_per_level
    engine = views.open_views(url)
    (stored,) = views.alarms(engine)
    assert (stored.source, stored.name, stored.stage, stored.step) == (
        "monitor",
        "accuracy",
        "r1",
        2,
    )
    assert "pass@1 went from 1.000 to 0.500" in stored.message
    assert [alarm.name for alarm in told] == ["accuracy"]
    rows = views.evaluation_table(engine, "monitor-r1-v6")
    assert [row.model for row in rows] == ["check 0001", "check 0002"]
    assert json.loads(views.recipe_of(engine, "monitor-r1-v6"))["name"] == "tiny"


def test_a_check_that_breaks_is_a_failed_run_and_no_evaluation(url, tmp_path):
    def broken(folder, recipe, settings):
        raise OSError("disk")

    number = views.evaluation_ids(views.open_views(url), "tiny-s0")["r1"]
    with pytest.raises(OSError, match="disk"):
        recheck(tmp_path, url, Line(number), "r1", None, broken)
    engine = views.open_views(url)
    assert views.run_overview(engine, "monitor-r1-v6").run.state == "failed"
    assert views.evaluation_ids(engine, "monitor-r1-v6") == {}


def test_without_a_champion_or_a_baseline_there_is_nothing_to_compare(url, tmp_path):
    with pytest.raises(RegistryError, match="no champion to watch"):
        recheck(tmp_path, url, Line(1), "other")
    with pytest.raises(RegistryError, match="no evaluation in the store"):
        recheck(tmp_path, url, Line(0), "r1")
