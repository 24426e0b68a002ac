from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.contents import PAGES
from services.store import open_store
from services.types import Metrics
from tests.dashboard import seed

FOLDER = Path(__file__).parents[2] / "dashboard" / "pages"
NAMES = [entry.name for entry in PAGES]


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


@pytest.mark.parametrize("name", NAMES)
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


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_has_only_begun(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    store.begin_run("new", recipe_name="tiny", recipe_digest="d", seed=0, recipe_json="{}")
    page = page_of(name, url, monkeypatch)
    assert not page.error
    assert "running · recipe tiny" in said(page)


def test_every_figure_is_drawn_for_stages_that_have_it(
    full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of("training", full, monkeypatch)
    assert page.session_state["stages"] == ["zero", "dev2", "r1", "student-rl"]
    titles = [element.value.strip("*") for element in page.markdown]
    assert titles == [
        "Reward",
        "Reward by part",
        "Accuracy",
        "Response length",
        "Language consistency",
        "Reflection",
        "What goes wrong",
        "Entropy",
    ]
    assert len(page.get("vega_lite_chart")) == len(titles)
    assert len(page.get("download_button")) == 1


def test_stages_can_be_chosen_by_address(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("training", full, monkeypatch, run=seed.RUN, stages=["dev1", "dev3"])
    assert [element.value for element in page.markdown] == ["**Loss**"]


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
    assert "was promoted" in page.success[0].value
    assert "language 0.99 ≥ 0.97" in said(page)
    assert "3 of 12 candidates" in said(page)


def test_samples_can_be_filtered(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("samples", full, monkeypatch, verdict="wrong", order="longest")
    assert len(page.code) == 10
    assert page.selectbox(key="verdict").value == "wrong"
    page.text_input(key="contains").set_value("nobody ever wrote this").run()
    assert "Loosen the filters" in said(page)


def test_samples_can_be_paged(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = page_of("samples", full, monkeypatch)
    second = page_of("samples", full, monkeypatch, page="2")
    assert len(second.code) == 10
    assert said(first) != said(second)


def test_what_a_model_wrote_is_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    seed.write_run(store, seed.RUN, steps=1)
    (row, *_) = seed.hostile_rollouts()
    store.write_step(seed.RUN, "zero", Metrics(1, {"accuracy": 0.0}), [row])
    page = page_of("samples", url, monkeypatch)
    (shown,) = page.code
    assert "<script>alert('x')</script>" in shown.value
    assert "\\x1b[31mred" in shown.value
    assert shown.language in {None, "", "plaintext"}
    elsewhere = [*page.markdown, *page.info, *page.caption, *page.title]
    assert not any("script" in element.value for element in elsewhere)
    assert not page.get("html")
    assert not page.get("iframe")
