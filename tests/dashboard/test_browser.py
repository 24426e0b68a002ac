"""The dashboard in a real browser: every page, its main controls, no error anywhere."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from dashboard.contents import PAGES
from infra.browser import EXCEPTIONS, Browser, missing_parts, running_browser, running_dashboard
from services.store import open_store
from services.store.ledger import open_ledger
from tests.dashboard import registered, seed

pytestmark = [
    pytest.mark.skipif(missing_parts() is not None, reason=str(missing_parts())),
    pytest.mark.slow,
]


BEGUN = "test-data-begun-s0-5eed5eed"
"""A run whose first stage alone has made a step."""
CHECKBOX, HEADER, ROW = 16, 36, 35
"""Pixels: middle of the column to choose rows by, heights of a table's heading and rows."""
CONTROL, ENTER = "\ue009", "\ue007"
"""Keys as WebDriver spells them."""
CONTROLS = """
const main = document.querySelector('[data-testid=stMain]');
const written = [...main.querySelectorAll('input, textarea')].map(e => e.value);
const pressed = [...main.querySelectorAll('[aria-checked=true], [aria-current]')];
return [...written, ...pressed.map(e => e.innerText)];
"""


class Site(NamedTuple):
    """A running dashboard, a browser, and what lies behind them."""

    address: str
    browser: Browser
    store_url: str

    def visit(self, page: str, query: str = "") -> str:
        """Go to a page; its text, after it was seen to hold no exception and no console error."""
        self.browser.open(f"{self.address}/{page}?{query}")
        return self.read()

    @property
    def query(self) -> str:
        """The filters in the address."""
        return str(self.browser.run("return decodeURIComponent(location.search)"))

    def choose(self, label: str, option: str) -> None:
        """Choose from a list of options."""
        self.browser.click(f"{select(label)}//input")
        self.browser.click(f"//*[@role='option'][contains(., '{option}')]")

    def go_back(self) -> str:
        """Go back as by the browser's button."""
        self.browser.run("history.back()")
        self.browser.settle()
        return self.read()

    def read(self) -> str:
        """The text of the page as it is now."""
        assert self.browser.run(EXCEPTIONS) == 0
        assert self.browser.errors() == []
        return self.browser.text()


def select(label: str) -> str:
    return f"//*[@data-testid='stSelectbox'][.//label[contains(., '{label}')]]"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    url = f"sqlite:///{home / 'store.db'}"
    store = open_store(url)
    seed.begin_live_run(store, BEGUN)
    seed.go_on(store, BEGUN, 1)
    seed.write_hostile_run(store)
    store.close()
    seed.seed_store(url, steps=3)
    registered.register(home, url, seed.RUN)
    environment = {**os.environ, "R1_HOME": str(home), "R1_STORE_URL": url}
    with running_dashboard(environment) as address, running_browser() as browser:
        yield Site(address, browser, url)


def test_a_fresh_server_shows_the_menu_to_who_comes_by_a_deep_link(site: Site) -> None:
    """First of all tests of this file: the server has shown nothing yet."""
    text = site.visit("data", "set=sft-set")
    assert all(entry.title in text for entry in PAGES)


@pytest.mark.parametrize("entry", PAGES, ids=lambda entry: entry.name)
def test_every_page_is_drawn_without_an_error(site: Site, entry: object) -> None:
    text = site.visit(entry.path.strip("/"))
    assert entry.title in text


@pytest.mark.parametrize(
    ("page", "query"),
    [
        ("samples", "stage=zero&step=2"),
        ("data", "set=cold-start"),
        ("evaluations", "left=r1&right=base"),
        ("emergence", ""),
        ("emergence", "asked=in+training%2C+by+step&question_stage=zero"),
        ("", ""),
    ],
)
def test_a_hostile_text_stays_text(site: Site, page: str, query: str) -> None:
    text = site.visit(page, f"run={seed.HOSTILE_RUN}&{query}")
    assert "<script>alert('x')</script>" in text
    assert "![image](http://localhost/x.png)" in text
    assert "\\x1b[31mred" in text
    _require_nothing_rendered(site)


def test_a_hostile_question_stays_text(site: Site) -> None:
    site.visit("playground", f"tokens=8&kind=general&question={quote(seed.HOSTILE)}")
    site.browser.click("//button[contains(., 'Ask both')]")
    site.browser.wait_for(
        "return document.body.innerText.includes('Your rating')", "gave no answers"
    )
    assert "<script>alert('x')</script>" in site.read()
    _require_nothing_rendered(site)


def _require_nothing_rendered(site: Site) -> None:
    assert not site.browser.run(
        "return document.querySelector('img[src*=\"localhost/x.png\"]') !== null"
        " || [...document.scripts].some(s => s.textContent.includes(\"alert('x')\"))"
        " || document.querySelector('a[href^=\"javascript:\"]') !== null"
    )


def test_another_run_is_chosen_in_the_list_of_runs(site: Site) -> None:
    assert "passed the gate" in site.visit("", f"run={seed.RUN}")
    runs = "(//*[@data-testid='stDataFrame'])[last()]"
    site.browser.click_at(f"{runs}//canvas", CHECKBOX, HEADER + ROW + ROW // 2)
    assert "was refused" in site.read()
    assert f"run={seed.HOSTILE_RUN}" in site.browser.run("return location.search")


def test_curves_are_chosen_by_stage_and_kind(site: Site) -> None:
    site.visit("training", f"run={seed.RUN}")
    site.browser.click("//button[normalize-space(.)='Policy']")
    assert "Gradient norm" in site.read()
    site.browser.click("//button[normalize-space(.)='dev1']")
    assert "Loss" in site.read()
    site.browser.click("//button[normalize-space(.)='Learning']")
    site.browser.click("//button[contains(., 'Line to compare with')]")
    site.browser.write("//input[@aria-label='Share of right answers']", f"0.5{ENTER}")
    site.read()
    here = site.browser.run("return location.search")
    assert "reference=0.5" in here
    site.visit("training", here.lstrip("?"))
    site.browser.wait_for(
        "return [...document.querySelectorAll('svg text')].some(t => t.textContent == 'human')",
        "draws no line to compare with",
    )


def test_words_and_the_same_question_are_looked_at(site: Site) -> None:
    site.visit("emergence", f"run={seed.RUN}")
    site.browser.click("//button[normalize-space(.)='Chinese']")
    assert "Reflective words in Chinese" in site.read()
    site.browser.click("//button[normalize-space(.)='in training, by step']")
    assert "step 3: " in site.read()
    site.browser.click("//button[normalize-space(.)='r1']")
    site.read()
    assert "stages_shown=r1" in site.browser.run("return location.search")


def test_a_bar_of_rewards_a_group_and_a_problem_are_clicked_through(site: Site) -> None:
    site.visit("samples", f"run={seed.RUN}")
    site.browser.click("(//*[@aria-roledescription='bar'])[1]")
    found = site.read()
    here = site.browser.run("return location.search")
    assert "part_below=" in here
    site.browser.click("//button[contains(., 'Its group')]")
    assert "advantage" in site.read()
    assert "group=" in site.browser.run("return location.search")
    site.browser.click("//button[contains(., 'Back to all completions')]")
    site.browser.click("//button[contains(., 'Its problem')]")
    assert "problem=" in site.browser.run("return location.search")
    site.read()
    again = site.visit("samples", here.lstrip("?"))
    (counted,) = [line for line in found.splitlines() if ", here 1 to " in line]
    assert counted in again


def test_a_filter_is_chosen_and_the_address_follows(site: Site) -> None:
    site.visit("data", "set=sft-set")
    site.browser.click("//*[@data-testid='stSelectbox'][.//label[contains(., 'How it')]]//input")
    site.browser.click("//*[@role='option'][contains(., 'wrong answer')]")
    assert "1 candidates" in site.read()
    here = site.browser.run("return location.search")
    assert "reason=wrong" in here
    assert "1 candidates" in site.visit("data", here.lstrip("?"))


def test_going_back_undoes_the_choice_of_a_run_and_of_a_question(site: Site) -> None:
    site.visit("samples", f"run={seed.RUN}&verdict=wrong")
    site.choose("Run", seed.HOSTILE_RUN)
    assert f"run={seed.HOSTILE_RUN}" in site.query
    site.go_back()
    assert f"run={seed.RUN}" in site.query
    assert "verdict=wrong" in site.query
    shown = site.browser.run(
        "return document.querySelector('[data-testid=stSelectbox] input').value"
    )
    assert shown == seed.RUN
    site.visit("emergence", f"run={seed.RUN}")
    first = site.query
    site.browser.click(f"{select('Question')}//input")
    site.browser.click("(//*[@role='option'])[2]")
    assert site.query != first
    site.go_back()
    assert site.query == first


@pytest.mark.parametrize(
    ("page", "choices"),
    [
        ("samples", {"Stage": "dev2", "Verdict": "wrong", "Question in": "zh", "Order": "best"}),
        ("data", {"Data set": "sft-set", "How it ended": "kept", "Question in": "en"}),
        ("evaluations", {"Left": "dev2", "Right": "base", "Order": "hardest", "Question in": "zh"}),
        ("emergence", {"Question": "zh"}),
        ("models", {"Model": "r1"}),
        ("playground", {"Level": "6", "Language": "zh", "Verified as": "not verified"}),
    ],
)
def test_a_link_brings_every_choice_back(site: Site, page: str, choices: dict[str, str]) -> None:
    site.visit(page)
    for label, option in choices.items():
        site.choose(label, option)
    second = "(//*[@data-testid='stPagination'])[1]//button[normalize-space(.)='2']"
    if site.browser.run(f"return document.evaluate({second!r}, document).iterateNext()"):
        site.browser.click(second)
    here, chosen = site.query, site.browser.run(CONTROLS)
    assert set(choices.values()) <= {*chosen} or page == "emergence"
    site.visit(page, here.lstrip("?"))
    assert site.browser.run(CONTROLS) == chosen
    assert site.query == here


def test_what_can_no_longer_be_chosen_leaves_the_address(site: Site) -> None:
    site.visit("samples", f"run={seed.RUN}")
    site.choose("Stage", "dev2")
    assert "stage=dev2" in site.query
    site.choose("Run", BEGUN)
    site.read()
    assert "stage=" not in site.query
    site.visit("training", f"run={seed.RUN}&with={seed.HOSTILE_RUN}")
    site.choose("Run", seed.HOSTILE_RUN)
    site.read()
    assert "with=" not in site.query


def test_no_stage_is_a_choice_that_a_link_brings_back(site: Site) -> None:
    site.visit("emergence", f"run={seed.RUN}")
    site.browser.click("//button[normalize-space(.)='zero']")
    assert "Choose a stage." in site.read()
    assert "Choose a stage." in site.visit("emergence", site.query.lstrip("?"))


def test_pages_keep_out_of_each_others_addresses(site: Site) -> None:
    def go(title: str) -> None:
        site.browser.click(f"//a[@data-testid='stTopNavLink'][contains(., '{title}')]")
        site.read()

    site.visit("emergence", f"run={seed.RUN}")
    go("Playground")
    assert site.browser.run("return document.querySelector('textarea').value").strip()
    go("Evaluations")
    site.choose("Order", "hardest")
    go("Samples")
    assert "hardest" not in site.query
    site.choose("Order", "longest")
    go("Evaluations")
    assert "longest" not in site.query
    assert f"run={seed.RUN}" in site.query


def test_levels_and_answers_are_paged_through(site: Site) -> None:
    site.visit("evaluations", "left=r1&right=base")
    site.browser.click("//button[@role='radio'][normalize-space(.)='3']")
    assert "pass@1 of every model, level 3" in site.read()


def test_a_model_is_promoted_with_a_note(site: Site) -> None:
    site.visit("models")
    site.browser.click("//button[contains(., 'Promote version 3')]")
    site.browser.write("//*[@role='dialog']//textarea", f"seen in the browser{CONTROL}{ENTER}")
    site.browser.click("//*[@role='dialog']//button[normalize-space(.)='Promote'][not(@disabled)]")
    said = "Version 3 is champion of r1 now"
    site.browser.wait_for(f"return document.body.innerText.includes('{said}')", "said nothing")
    site.read()
    head = open_ledger(site.store_url).head("r1")
    assert head is not None
    assert (head.champion, head.why) == (3, "seen in the browser")


def test_a_recipe_is_changed_in_the_form_and_the_address_follows(site: Site) -> None:
    site.visit("operations", "recipe=tiny&sections=recipe")
    field = "//*[@data-testid='stNumberInput'][.//label[contains(., 'seed')]]"
    site.browser.click(f"{field}//button[@data-testid='stNumberInputStepUp']")
    assert "--set 'seed=1'" in site.read()
    here = site.browser.run("return location.search")
    assert "--set 'seed=1'" in site.visit("operations", here.lstrip("?"))


def test_two_models_answer(site: Site) -> None:
    site.visit("playground", "tokens=24")
    site.browser.click("//button[contains(., 'Ask both')]")
    site.browser.wait_for(
        "return document.body.innerText.includes('Your rating')", "gave no answers"
    )
    site.browser.click("//button[contains(., 'Both are good')]")
    site.browser.wait_for("return document.body.innerText.includes('Kept.')", "kept nothing")
    assert "Left is better" not in site.read()


def test_a_run_at_work_is_followed_without_loading_the_page_anew(site: Site) -> None:
    """Last of those with a run: from here on the newest run of the store is another one."""
    waiting = {
        "training": "No stage of this run has made a step yet",
        "emergence": "No stage of this run has learned by reward yet",
        "samples": "No stage of this run has sampled yet",
        "evaluations": "No model of this run has been measured yet",
    }
    store = open_store(site.store_url)
    for page, said in waiting.items():
        run = f"test-data-live-{page}-s0-5eed5eed"
        seed.begin_live_run(store, run)
        assert said in site.visit(page, f"run={run}")
        seed.go_on(store, run, 1)
        site.browser.wait_for(f"return !document.body.innerText.includes('{said}')", "stood still")
        site.read()
    site.visit("samples", f"run={run}")
    seed.go_on(store, run, 2)
    said = "zero is at step 2 now"
    site.browser.wait_for(f"return document.body.innerText.includes('{said}')", "stood still")
    site.visit("", f"run={run}")
    seed.go_on(store, run, 3)
    said = "zero: step 3 of 9"
    site.browser.wait_for(f"return document.body.innerText.includes('{said}')", "stood still")
    site.read()
    store.close()


def test_screens_are_where_no_menu_can_be_gone_past() -> None:
    folder = Path(__file__).parents[2] / "dashboard"
    assert not (folder / "pages").exists()
