"""The pool: what may be added, what is refused with its lines, and what a recipe trains on."""

import json
from pathlib import Path

import pytest

from services.config import Problems
from services.errors import ProblemError
from services.pool import ProblemPool
from services.recipes import load_recipe
from services.store import open_store
from services.store.opening import open_engine_to_write
from services.tasks import countdown
from services.tasks.overlap import Known, grams_of, question_digest, words_of
from services.tasks.pool import mixed, read_snapshot, snapshot_path, write_snapshot
from services.tasks.sources import held_out_problems, training_problems
from services.types import (
    Completion,
    EvaluationSample,
    Judgement,
    Problem,
    Score,
    TraceFacts,
    Verdict,
)

APPLES = (
    "Ann has seven apples and gives two of them to each of her three best friends . "
    "How many are left ?"
)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def pool(url):
    return ProblemPool(open_engine_to_write(url))


def write(folder, *rows):
    path = folder / "new.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def math(question, answer, **more):
    return {"question": question, "answer": answer, "kind": "math", **more}


def puzzle(numbers, target, question="which signs between these give that ?"):
    gold = {"numbers": numbers, "target": target, "ordered": True, "operators": "+-"}
    return {"question": f"{question} {numbers} {target}", "answer": gold, "kind": "countdown"}


def trained_numbers(level=3, held_out=False):
    return next(
        row
        for row in ([a, b, c] for a in range(1, 10) for b in range(1, 10) for c in range(1, 10))
        if countdown.is_held_out(row) == held_out
    )[:level]


def add(pool, path, **settings):
    return pool.add_file(path, settings=Problems(kind="math", **settings), who="ann")


def test_problems_of_several_kinds_are_added_with_where_they_came_from(pool, tmp_path):
    numbers = trained_numbers()
    path = write(
        tmp_path,
        math("What is 3 + 4 ?", "so it is\n#### 7"),
        math("三加四等于几?", "7", language="zh", level=2),
        "",
        puzzle(numbers, sum(numbers)),
        {"question": "Which one ?", "gold": "B", "kind": "choice"},
    )
    assert add(pool, path) == 4
    rows = {row.problem.question: row for row in pool.problems()}
    assert rows["What is 3 + 4 ?"].problem.gold == "7"
    assert rows["三加四等于几?"].problem.language == "zh"
    assert {row.problem.level for row in rows.values()} == {0, 2, 3}
    assert {(row.origin, row.who, tuple(row.used_by)) for row in rows.values()} == {
        ("new.jsonl", "ann", ())
    }
    assert pool.unused() == 4
    by_kind = {(row.kind, row.language): (row.problems, row.unused) for row in pool.counts()}
    assert by_kind[("math", "zh")] == (1, 1)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("{", "line 2: is not JSON"),
        ("[]", "line 2: is not a JSON object"),
        ({"answer": "7"}, "line 2: has no question"),
        ({"question": "?", "answer": True}, "line 2: has no answer"),
        (math("What is 1 + 1 ?", "2", language="English"), "no language code"),
        (math("What is 1 + 1 ?", "2", level=-1), "a level that is no number from 0: -1"),
        ({"question": "What is 1 + 1 ?", "answer": "2", "kind": "maths"}, "line 2: .*maths"),
        ({"question": "Be kind .", "answer": "", "kind": "general"}, "line 2: "),
        (puzzle([1, 1, 1], 9), r"line 2: its answer .* does not verify against itself"),
        (puzzle(trained_numbers(held_out=True), 3), "belong to the held-out puzzles"),
        (math("what IS 2+2", "4"), "line 2: asks the same as 'What is 2 \\+ 2 \\?'"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_added(pool, tmp_path, row, says):
    path = write(tmp_path, math("What is 2 + 2 ?", "4"), row, math("What is 9 + 1 ?", "10"))
    with pytest.raises(ProblemError, match=says):
        add(pool, path)
    assert pool.problems() == []


def test_many_bad_lines_are_named_up_to_five(pool, tmp_path):
    with pytest.raises(ProblemError, match=r"line 1: .*line 5: .*; and 3 more"):
        add(pool, write(tmp_path, *["{"] * 8))


def test_what_is_there_already_is_refused_by_words_and_by_ten_in_a_row(pool, tmp_path):
    add(pool, write(tmp_path, math(APPLES, "1")))
    with pytest.raises(ProblemError, match="which is there already"):
        add(pool, write(tmp_path, math(APPLES.upper().replace(" .", "!"), "1")))
    longer = APPLES.replace("Ann has", "Bob, who is five, has")
    with pytest.raises(ProblemError, match=r"shares “.*” with 'Ann has"):
        add(pool, write(tmp_path, math(longer, "1")))
    other = APPLES.replace(
        "seven apples and gives two of them", "nine pears and hands one of these"
    )
    assert (
        add(pool, write(tmp_path, math(other.replace("her three best", "the four old"), "5"))) == 1
    )


def test_questions_of_evaluations_are_held_out(pool, url, tmp_path):
    problem = Problem("x", "math", "What is 40 + 2 ?", "42", "en")
    score = Score(*Judgement(Verdict.CORRECT, ""), {"accuracy": 1.0}, 1.0)
    facts = TraceFacts(0, 1.0)
    sample = EvaluationSample(problem, 0, Completion("42", (1,), (0.0,), False), score, facts)
    store = open_store(url)
    store.begin_run("r", recipe_name="t", recipe_digest="d", seed=0, recipe_json="{}")
    store.write_evaluation("r", "base", {}, {}, [sample])
    with pytest.raises(ProblemError, match="asks the same as the held-out 'What is 40"):
        add(pool, write(tmp_path, math("what is 40 + 2", "42")))


def test_questions_of_a_test_file_are_held_out(pool, tmp_path):
    held = tmp_path / "test.jsonl"
    held.write_text(json.dumps(math("What is 5 + 5 ?", "10")))
    settings = {"source": "jsonl", "train_file": "unread.jsonl", "test_file": str(held)}
    with pytest.raises(ProblemError, match="the held-out 'What is 5"):
        add(pool, write(tmp_path, math("What is 5 + 5", "10")), **settings)


def test_words_ignore_case_and_points_but_not_signs():
    assert words_of("What IS 3 + 4?") == ["what", "is", "3", "+", "4"]
    assert question_digest("3 + 4 ?") != question_digest("3 - 4 ?")
    assert words_of("三加四等于几?") == ["三", "加", "四", "等", "于", "几"]
    assert len(grams_of("一二三四五六七八九十加减")) == 3
    assert grams_of("too short for any") == set()


def test_puzzles_share_words_and_not_numbers():
    known = Known(["which signs between 3 5 8 2 9 4 give 7 in the end ?"])
    other = Problem(
        "x", "countdown", "which signs between 3 5 8 2 9 4 give 9 in the end ?", "", "en"
    )
    assert known.same_as(other) is None
    assert known.same_as(Problem("x", "math", other.question, "", "en")) is not None


def snapshot_of(pool, tmp_path, count=3):
    path = write(tmp_path, *[math(f"What is {n} + 100 ?", str(n + 100)) for n in range(count)])
    add(pool, path)
    return pool.snapshot(tmp_path)


def test_a_snapshot_is_known_by_its_content_and_refused_when_damaged(pool, tmp_path):
    digest = snapshot_of(pool, tmp_path)
    assert pool.snapshot(tmp_path) == digest
    assert {row.gold for row in read_snapshot(digest, tmp_path)} == {"100", "101", "102"}
    path = snapshot_path(digest, tmp_path)
    path.write_text(path.read_text().replace("102", "103"))
    with pytest.raises(ProblemError, match="damaged"):
        read_snapshot(digest, tmp_path)
    path.unlink()
    with pytest.raises(ProblemError, match="no snapshot"):
        read_snapshot(digest, tmp_path)


def test_a_recipe_trains_on_its_share_of_the_pool_and_measures_on_none_of_it(
    pool, tmp_path, monkeypatch
):
    monkeypatch.setenv("R1_HOME", str(tmp_path))
    digest = snapshot_of(pool, tmp_path)
    settings = Problems(pool=digest, pool_share=0.25)
    problems = training_problems(settings, seed=1, count=40)
    added = [problem for problem in problems if problem.kind == "math"]
    assert len(added) == 10
    assert {problem.gold for problem in added} == {"100", "101", "102"}
    own = training_problems(Problems(), seed=1, count=40)
    assert [p for p in problems if p.kind != "math"] == [
        kept for kept, got in zip(own, problems, strict=True) if got.kind != "math"
    ]
    assert problems == training_problems(settings, seed=1, count=40)
    assert held_out_problems(settings, 7, 2) == held_out_problems(Problems(), 7, 2)


def test_an_empty_pool_setting_changes_nothing():
    plain = training_problems(Problems(), seed=1, count=8)
    assert plain == training_problems(Problems(pool_share=1.0), seed=1, count=8)
    assert mixed(plain, plain[:1], 0.0, 0) == plain
    assert mixed(plain, plain[:1], 1.0, 0) == [plain[0]] * 8


def test_now_becomes_the_digest_of_now_and_the_run_is_written_down(pool, tmp_path):
    recipe = load_recipe("tiny", ["problems.pool=now"])
    with pytest.raises(ProblemError, match="the pool is empty"):
        pool.pinned(recipe, tmp_path)
    digest = snapshot_of(pool, tmp_path)
    pinned = pool.pinned(recipe, tmp_path)
    assert pinned.problems.pool == digest
    assert pool.pinned(pinned, tmp_path) is pinned
    pool.mark_used(pinned, tmp_path, "tiny-s0")
    pool.mark_used(pinned, tmp_path, "tiny-s0")
    assert pool.unused() == 0
    assert {tuple(row.used_by) for row in pool.problems()} == {("tiny-s0",)}
    add(pool, write(tmp_path, math("What is 7 + 300 ?", "307")))
    assert pool.unused() == 1
    assert pool.snapshot(tmp_path) != digest


def test_a_snapshot_of_the_same_problems_is_the_same_in_any_order(tmp_path):
    rows = [Problem(f"p{n}", "math", f"{n} ?", str(n), "en") for n in range(3)]
    assert write_snapshot(tmp_path, rows) == write_snapshot(tmp_path, rows[::-1])
    assert len(list((Path(tmp_path) / "pools").iterdir())) == 1
