"""What the address of a page holds, and what it no longer holds."""

import ast
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from streamlit.testing.v1 import AppTest

from services.store import open_store
from services.types import CuratedRow, DropReason
from tests.dashboard import registered, seed
from tests.dashboard.test_pages import page_of, said

SCREENS = Path(__file__).parents[2] / "dashboard" / "screens"
EVERYWHERE = {"run", "told", "with", "seeds", "smoothing"}
"""Of the run, of what was just done, and of the two pages that lay runs over each other."""
PARTS = {
    "emergence": ["question.py", "overlay.py"],
    "training": ["overlay.py"],
    "operations": ["launch_form.py"],
}
"""Other files that name keys of a page."""


@pytest.fixture
def two_runs(tmp_path: Path) -> str:
    """A whole run, and one of which only the first stage has begun."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    seed.write_run(store, "whole", steps=2)
    seed.begin_live_run(store, "begun")
    seed.go_on(store, "begun", 1)
    store.close()
    return url


@pytest.fixture
def registered_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store whose run has registered three versions."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    seed.seed_store(url, steps=1)
    registered.register(tmp_path, url, seed.RUN)
    monkeypatch.setenv("R1_HOME", str(tmp_path))
    return url


def address_of(page: AppTest) -> dict[str, object]:
    return dict(page.query_params.items())


def keys_of(file: Path) -> set[str]:
    """Keys of widgets, and names that the session is asked for."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "key":
            found.add(node.value)
        if isinstance(node, ast.Subscript) and "session_state" in ast.unparse(node.value):
            found.add(node.slice)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("session_state.get", "session_state.pop", "session_state.setdefault")
        ):
            found.add(node.args[0])
    return {str(name.value) for name in found if isinstance(name, ast.Constant)}


def test_no_two_pages_have_a_key_in_common() -> None:
    """Streamlit hands a value on to the next page's widget of the same key, sense or not."""
    pages: Counter[str] = Counter()
    for file in SCREENS.glob("*.py"):
        parts = [SCREENS.parent / part for part in PARTS.get(file.stem, [])]
        pages.update(set().union(*map(keys_of, [file, *parts])))
    assert {"stage", "pair", "of_question", "replies"} <= pages.keys()
    assert {name for name, count in pages.items() if count > 1} <= EVERYWHERE


def test_a_stage_that_the_run_has_not_leaves_the_address(
    two_runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of("samples", two_runs, monkeypatch, run="whole", stage="dev2")
    assert page.selectbox(key="stage").value == "dev2"
    page.selectbox(key="run").set_value("begun").run()
    assert page.selectbox(key="stage").value == "zero"
    assert "stage" not in address_of(page)


def test_a_source_of_another_data_set_leaves_the_address(
    two_runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = seed.problem(Random(1))
    row = CuratedRow(asked, "a trace", "a trace", DropReason.KEPT, "written")
    open_store(two_runs).write_curation("whole", "sft-set", [row])
    wanted = {"run": "whole", "set": "sft-set", "source": "written", "reason": "kept"}
    page = page_of("data", two_runs, monkeypatch, **wanted)
    assert page.session_state["source"] == "written"
    page.selectbox(key="set").set_value("cold-start").run()
    assert not page.exception
    assert page.session_state["source"] is None
    assert "source" not in address_of(page)
    assert page.session_state["reason"] == "kept", "it is there in this data set, too"


def test_a_run_beside_it_that_became_the_run_leaves_the_address(
    two_runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("training", "emergence"):
        page = page_of(name, two_runs, monkeypatch, run="whole", **{"with": ["begun"]})
        assert page.multiselect(key="with").value == ["begun"]
        page.selectbox(key="run").set_value("begun").run()
        assert not page.exception
        assert page.multiselect(key="with").value == []
        assert "with" not in address_of(page)


def test_a_model_that_the_run_has_not_leaves_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    seed.write_run(store, "whole", steps=1)
    seed.begin_live_run(store, "begun")
    seed.write_evaluation(store, "begun", "base", 0.5, Random(0))
    page = page_of("evaluations", url, monkeypatch, run="whole", left="dev3", right="dev1")
    assert [page.selectbox(key=side).value for side in ("left", "right")] == ["dev3", "dev1"]
    page.selectbox(key="run").set_value("begun").run()
    assert not page.exception
    assert [page.selectbox(key=side).value for side in ("left", "right")] == ["base", "base"]
    assert not {"left", "right"} & address_of(page).keys()


def test_an_older_run_than_those_listed_is_found_by_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    seed.write_run(store, "run-000", steps=1)
    for number in range(1, 103):
        store.begin_run(
            f"run-{number:03}", recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}"
        )
    page = page_of("overview", url, monkeypatch, run="run-000")
    assert "recipe test-data" in said(page)
    assert page.selectbox(key="run").value == "run-000"
    assert len(page.dataframe[-1].value) == 100
    page = page_of("overview", url, monkeypatch, run="run-000", runs_page="2")
    assert set(page.dataframe[-1].value["run"]) == {"run-000", "run-001", "run-002"}
    page = page_of("training", url, monkeypatch, **{"with": ["run-000"]})
    assert page.selectbox(key="run").value != "run-000"
    assert page.multiselect(key="with").value == ["run-000"]


def test_a_run_that_does_not_exist_is_said(two_runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("overview", two_runs, monkeypatch, run="no such <b>run</b>")
    assert "There is no run no such <b>run</b>; this is another." in said(page)
    assert page.query_params["run"] == page.selectbox(key="run").value
    assert "There is no run" not in said(page_of("overview", two_runs, monkeypatch, run="whole"))


def test_what_comes_into_the_address_counts_for_run_and_question(
    two_runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by going back in the browser: no widget was touched, the address is another one."""
    page = page_of("emergence", two_runs, monkeypatch, run="whole")
    first = page.session_state["of_question"]
    page.selectbox(key="of_question").select_index(1).run()
    assert page.session_state["of_question"] != first
    page.query_params["of_question"] = first
    page.run()
    assert page.session_state["of_question"] == first
    page.selectbox(key="run").set_value("begun").run()
    page.query_params["run"] = "whole"
    page.run()
    assert page.selectbox(key="run").value == "whole"


@pytest.mark.parametrize(("name", "key"), [("training", "stages"), ("emergence", "stages_shown")])
def test_no_stage_is_a_choice_that_the_address_holds(
    name: str, key: str, two_runs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(name, two_runs, monkeypatch, run="whole", **{key: ""})
    assert page.session_state[key] == []
    assert "Choose a stage." in said(page)
    page.run()
    assert page.session_state[key] == []


def test_a_puzzle_nobody_wrote_into_goes_along_with_its_level(
    registered_models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of("playground", registered_models, monkeypatch)
    first = page.text_area(key="question").value
    page.selectbox(key="puzzle_level").set_value(6).run()
    harder = page.text_area(key="question").value
    assert first != harder
    again = page_of("playground", registered_models, monkeypatch, puzzle_level="6")
    assert again.text_area(key="question").value == harder
    assert again.text_input(key="gold").value == page.text_input(key="gold").value
    page.button(key="draw").click().run()
    drawn = page.text_area(key="question").value
    assert drawn != harder
    again = page_of("playground", registered_models, monkeypatch, **address_of(page))
    assert again.text_area(key="question").value == drawn
    page.text_area(key="question").set_value("what is 1 + 1 ?").run()
    page.selectbox(key="puzzle_level").set_value(3).run()
    assert page.text_area(key="question").value == "what is 1 + 1 ?"


def test_a_version_is_shown_where_the_address_names_it(
    registered_models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked, shown in (("1", "Version 1"), ("9" * 5000, "Version 3"), ("0", "Version 3")):
        page = page_of("models", registered_models, monkeypatch, version=asked)
        assert shown in {element.value for element in page.subheader}
