import html
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine
from streamlit.testing.v1 import AppTest

from dashboard import frame
from dashboard.contents import PAGES
from services.store import open_store
from services.store.alarms import Alarm, open_alarms
from services.store.ledger import Promotion, open_ledger
from services.types import Metrics
from services.views import list_runs, open_views
from tests.dashboard import seed

FOLDER = Path(__file__).parents[2] / "dashboard" / "screens"
NAMES = [entry.name for entry in PAGES]
OF_RUN = [entry.name for entry in PAGES if entry.of_run]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard') / 'store.db'}"
    seed.seed_store(url)
    return url


def page_of(name: str, url: str, monkeypatch: pytest.MonkeyPatch, **params: object) -> AppTest:
    monkeypatch.setenv("R1_STORE_URL", url)
    page = AppTest.from_file(str(FOLDER / f"{name}.py"), default_timeout=30)
    for key, value in params.items():
        page.query_params[key] = value
    page.run()
    assert not page.exception
    return page


def said(page: AppTest) -> str:
    kinds = (page.text, page.info, page.error, page.markdown, page.code)
    return "\n".join(str(element.value) for elements in kinds for element in elements)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1_HOME", str(tmp_path_factory.getbasetemp() / "no home"))


@pytest.mark.parametrize("name", OF_RUN)
def test_a_full_store(name: str, full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of(name, full, monkeypatch)
    assert not page.error
    assert "finished · recipe test-data · seed 0" in said(page)


@pytest.mark.parametrize("name", NAMES)
def test_a_store_that_is_not_there_says_what_to_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(name, f"sqlite:///{tmp_path / 'store.db'}", monkeypatch)
    assert "r1 run --recipe tiny" in said(page)
    assert not page.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_store_says_what_to_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    open_store(url).close()
    page = page_of(name, url, monkeypatch)
    assert "r1 run --recipe tiny" in said(page)
    assert not page.error


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_store_is_said_in_words(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store.db").write_text("no database at all " * 99)
    page = page_of(name, f"sqlite:///{tmp_path / 'store.db'}", monkeypatch)
    assert page.error
    assert "file is not a database" in said(page)


@pytest.mark.parametrize("name", OF_RUN)
def test_a_run_that_has_only_begun(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    store.begin_run("new", recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}")
    page = page_of(name, url, monkeypatch)
    assert not page.error
    assert "running · recipe tiny" in said(page)


def titles(page: AppTest) -> list[str]:
    return [element.value.strip("*") for element in page.markdown]


def test_every_figure_is_drawn_for_stages_that_have_it(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of("training", full, monkeypatch)
    assert page.session_state["stages"] == ["zero", "dev2", "r1", "student-rl"]
    learning = {"Reward", "Reward by part", "Held-out accuracy", "Accuracy in training"}
    assert set(titles(page)) == learning
    assert len(page.get("vega_lite_chart")) == len(page.get("download_button")) == len(learning)
    page = page_of("training", full, monkeypatch, figures="Policy")
    assert set(titles(page)) == {"Entropy", "Gradient norm", "Learning rate"}


def test_runs_are_laid_over_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    for number in range(3):
        seed.write_run(store, f"run-{number}", steps=3, seed=number % 2)
    others = ["run-0", "run-1"]
    for name in ("training", "emergence"):
        page = page_of(name, url, monkeypatch, run="run-2", **{"with": others})
        assert page.multiselect(key="with").value == others
        spec = json.loads(page.get("vega_lite_chart")[0].proto.spec)
        colours = [layer["encoding"].get("color", {}) for layer in spec["layer"]]
        (domain,) = {tuple(colour["scale"]["domain"]) for colour in colours if colour}
        # Two have seed 0 and one has seed 1, and nothing else differs: one line, one band.
        assert len(domain) == 1 or name == "training"
        page.toggle(key="seeds").set_value(False).run()
        assert not page.exception
        spec = json.loads(page.get("vega_lite_chart")[0].proto.spec)
        domain = spec["layer"][-1]["encoding"]["color"]["scale"]["domain"]
        assert domain == ["run-2", "run-0", "run-1"]


def test_emergence_shows_curves_first_steps_words_and_one_question(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of("emergence", full, monkeypatch)
    assert {
        "First steps",
        "Response length",
        "Length of right and of wrong answers",
        "Reflective words",
        "Accuracy by level",
        "Language consistency",
        "Giving up and being cut off",
        "Reflective words in English",
        "How it was answered",
    } == set(titles(page))
    found = page.dataframe[0].value
    assert list(found["what"]) == ["Re-checking", "Giving up less", "Language mixing"]
    assert set(found["stage"]) == {"zero"}
    assert page.multiselect(key="at").value == ["base", "r1-zero", "r1"]
    other = page.selectbox(key="of_question").options[1]
    assert other != page.selectbox(key="of_question").options[0]
    assert len(page.get("html")) == 3
    assert page.get("html")[0].proto.body.count("<mark") > 0


def test_a_question_is_followed_through_a_stage(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("emergence", full, monkeypatch, asked="in training, by step")
    steps = page.multiselect(key="at")
    assert len(steps.options) >= 2
    assert all(option.startswith("step ") for option in steps.options)
    page.segmented_control(key="asked").set_value("held-out, by model").run()
    assert not page.exception
    assert page.multiselect(key="at").value == ["base", "r1-zero", "r1"]


def test_stages_can_be_chosen_by_address(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("training", full, monkeypatch, run=seed.RUN, stages=["dev1", "dev3"])
    assert titles(page) == ["Held-out accuracy"]
    page = page_of("training", full, monkeypatch, stages=["dev1"], figures="Policy")
    assert titles(page) == ["Loss"]


def test_no_stage_chosen(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("training", full, monkeypatch, stages="")
    assert [element.value for element in page.info] == ["Choose a stage."]


def test_a_run_can_be_chosen_by_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    for name in ("old", "new"):
        store.begin_run(name, recipe_name=name, recipe_digest="d", seed=0, recipe_json="{}")
    assert "recipe new" in said(page_of("overview", url, monkeypatch))
    assert "recipe old" in said(page_of("overview", url, monkeypatch, run="old"))
    assert "recipe new" in said(page_of("overview", url, monkeypatch, run="no such run"))


def test_overview_shows_models_and_decision(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("overview", full, monkeypatch)
    table = page.dataframe[0].value
    assert list(table["model"]) == list(seed.MODELS)
    assert {"pass@1", "pass@1/level_6", "cons@16", "safety"} <= set(table.columns)
    assert "passed the gate" in page.success[0].value
    assert "language 0.99 ≥ 0.97" in said(page)
    assert "No model has become champion yet" in said(page)


def test_overview_lists_every_run_with_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    seed.write_run(store, "done", steps=1)
    store.end_run("done", "finished", "r1 was promoted")
    store.begin_run("new", recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}")
    page = page_of("overview", url, monkeypatch, run="done")
    rows = page.dataframe[-1].value.set_index("run")
    assert set(rows.index) == {"new", "done"}
    assert list(rows.loc["done", ["state", "model", "gate"]]) == ["finished", "r1", "promoted"]
    r1 = page.dataframe[0].value.set_index("model").loc["r1"]
    assert rows.loc["done", "pass@1"] == r1["pass@1"]
    assert list(rows.loc["new", ["state", "model", "gate"]]) == ["running", "", ""]


def test_overview_shows_champion_and_alarms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    store.begin_run("new", recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}")
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    open_ledger(url).append(Promotion("r1", 1, "promote", 7, None, "ada", "<b>best</b>", at))
    alarm = Alarm("guard", "entropy", "pause", "entropy \x1b[31m0.01 < 0.1", "new", "zero", 12)
    open_alarms(url).raise_alarm(alarm)
    page = page_of("overview", url, monkeypatch)
    words = said(page)
    assert "r1, version 7: promoted by ada on 2026-01-02 03:04 UTC. <b>best</b>" in words
    assert "zero step 12 · entropy · training was paused" in words
    assert "entropy \\x1b[31m0.01 < 0.1" in words
    assert {metric.label: metric.value for metric in page.metric}["Champion"] == "v7"


def shown(page: AppTest) -> list[str]:
    """Texts of completions, as a reader sees them."""
    bodies = [element.proto.body for element in page.get("html")]
    return [html.unescape(re.sub("<[^>]*>", "", body)) for body in bodies]


def test_samples_can_be_filtered(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("samples", full, monkeypatch, verdict="wrong", order="longest")
    assert len(shown(page)) == 10
    assert page.selectbox(key="verdict").value == "wrong"
    page.text_input(key="contains").set_value("nobody ever wrote this").run()
    assert "Loosen the filters" in said(page)


def test_every_filter_of_samples_comes_back_from_the_address(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = {
        "stage": "dev2", "verdict": "correct", "language": "zh", "order": "best", "step": "3",
        "level": "4", "contains": "try", "only": "mixes languages", "part": "language",
        "part_from": "0.1", "part_below": "0.9", "tokens_from": "5", "tokens_to": "200",
        "problem": "nobody asked this",
    }  # fmt: skip
    page = page_of("samples", full, monkeypatch, **address)
    assert "Loosen the filters" in said(page)
    state = page.session_state
    assert state["only"] == ["mixed_language"]
    for key in address.keys() - {"only"}:
        assert str(state[key]) == address[key], key
    page.button[0].click().run()
    assert len(shown(page)) == 10
    assert page.selectbox(key="stage").value == "dev2"


def test_filters_that_mean_nothing_any_more_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    for run, steps in (("long", 5), ("short", 2)):
        seed.write_run(store, run, steps=steps)
    page = page_of("samples", url, monkeypatch, run="long", step="4", part_from="0.5")
    assert page.number_input(key="step").value == 4
    page.selectbox(key="part").set_value("language").run()
    assert page.number_input(key="part_from").value is None, "a bound of another part"
    page.selectbox(key="run").set_value("short").run()
    assert page.number_input(key="step").value is None
    assert "16, here 1 to 10" in said(page)


@pytest.mark.parametrize(("name", "key"), [("training", "stages"), ("emergence", "stages_shown")])
def test_stages_of_another_run_give_way_to_those_there_are(
    name: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    seed.write_run(store, "whole", steps=2)
    seed.begin_live_run(store, "begun")
    seed.go_on(store, "begun", 1)
    page = page_of(name, url, monkeypatch, run="whole", **{key: ["r1", "dev2"]})
    assert page.session_state[key] == ["r1", "dev2"]
    page.selectbox(key="run").set_value("begun").run()
    assert page.session_state[key] == ["zero"]
    assert "Choose a stage." not in said(page)


@pytest.mark.parametrize("number", ["99999999999999999999999", "0", "-1", "abc"])
def test_a_number_that_no_problem_has_is_no_failure(
    number: str, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of("evaluations", full, monkeypatch, pair=number)
    assert not page.error


def test_the_other_side_goes_along_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    for number in range(3):
        seed.write_run(store, f"run-{number}", steps=1, seed=number)
    page = page_of("evaluations", url, monkeypatch, run="run-0")
    page.selectbox(key="run").set_value("run-2").run()
    assert page.selectbox(key="against").value == "run-2"
    page.selectbox(key="against").set_value("run-1").run()
    page.selectbox(key="run").set_value("run-0").run()
    assert page.selectbox(key="against").value == "run-1", "somebody chose it"
    assert not page.exception


def test_another_question_begins_at_its_first_page(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of("samples", full, monkeypatch, page="3")
    assert "96, here 21 to 30" in said(page)
    page.selectbox(key="order").set_value("longest").run()
    assert "96, here 1 to 10" in said(page)


def test_samples_can_be_paged(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = page_of("samples", full, monkeypatch)
    second = page_of("samples", full, monkeypatch, page="2")
    assert len(shown(second)) == 10
    assert shown(first) != shown(second) or said(first) != said(second)
    assert "96, here 11 to 20" in said(second)
    assert "96, here 1 to 10" in said(page_of("samples", full, monkeypatch, page="99"))


def test_a_group_side_by_side_and_its_problem(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("samples", full, monkeypatch)
    next(button for button in page.button if button.label == "Its group").click().run()
    assert not page.exception
    assert titles(page) == ["Group 0 of step 12"]
    assert "4 answers" in said(page)
    assert re.search(r"reward [\d.]+ \(accuracy [01]\.00, format [01]\.00, language", said(page))
    advantages = [float(a) for a in re.findall(r"advantage ([+-][\d.]+)", said(page))]
    assert advantages == sorted(advantages, reverse=True)
    assert len(advantages) == len(shown(page)) == 4
    page.button[0].click().run()
    next(button for button in page.button if button.label == "Its problem").click().run()
    assert page.session_state["order"] == "step"
    problem = page.session_state["problem"]
    assert shown(page)
    assert said(page).count(f"problem {problem}") == len(shown(page))


def test_what_a_model_wrote_is_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    seed.write_run(store, seed.RUN, steps=1)
    (row, *_) = seed.hostile_rollouts()
    store.write_step(seed.RUN, "zero", Metrics(1, {"accuracy": 0.0}), [row])
    listing = page_of("samples", url, monkeypatch)
    group = page_of("samples", url, monkeypatch, step="1", group="0")
    for page in (listing, group):
        (body,) = [element.proto.body for element in page.get("html")]
        assert "<script" not in body
        assert "<img" not in body
        (text,) = shown(page)
        assert "<script>alert('x')</script>" in text
        assert "![image](http://localhost/x.png) **bold**" in text
        assert "\\x1b[31mred" in text
        elsewhere = [*page.markdown, *page.info, *page.caption, *page.title]
        assert not any("script" in element.value for element in elsewhere)
        assert not page.get("iframe")


def test_what_changes_by_the_second_does_not_make_the_rest_be_asked_anew(full: str) -> None:
    engine = open_views(full)
    (run,) = [run for run in list_runs(engine) if run.id == seed.RUN]
    asked = []

    def question(engine: Engine, number: int) -> int:
        asked.append(number)
        return number

    frame.forget()
    answers = [frame.ask(of, question, engine, n) for of, n in ((run, 1), (None, 2)) * 3]
    assert answers == [1, 2] * 3
    assert asked == [1, 2]
    frame.ask(run, question, engine, 3)
    assert asked == [1, 2, 3]
