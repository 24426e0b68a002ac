"""The pages on which people decide: data, evaluations, models, operations, playground."""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import people, places
from services import detached, views
from services.access import Actor, Role
from services.detached import launches
from services.orchestrator import Deployment, FlowRun, Orchestrator
from services.store import approvals, open_store
from services.store.ledger import open_ledger
from services.store.opening import open_engine_to_write
from services.types import CuratedRow, DropReason
from services.views import opinions, waiting
from tests.dashboard import registered, seed
from tests.dashboard.test_pages import page_of, said

OPERATOR, VIEWER = Actor("test operator", Role.OPERATOR), Actor("test viewer", Role.VIEWER)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    url = f"sqlite:///{folder / 'store.db'}"
    seed.seed_store(url, steps=2)
    registered.register(folder, url, seed.RUN)
    return folder


@pytest.fixture
def url(home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("R1_HOME", str(home))
    return f"sqlite:///{home / 'store.db'}"


def become(actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "here", lambda: actor)


def test_a_data_set_is_a_funnel_with_examples(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("data", url, monkeypatch, set="sft-set")
    shown = {metric.label: metric.value for metric in page.metric}
    assert shown["Candidates"] == "12"
    assert shown["Kept"] == "3"
    examples = page.dataframe[0].value
    assert list(examples["how it ended"]) == [reason.value for reason in DropReason]
    assert "stage zero of test-data" in said(page)


def test_candidates_are_filtered_by_the_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("data", url, monkeypatch, set="cold-start", reason="wrong answer")
    assert page.selectbox(key="reason").value == "wrong answer"
    assert "**1 candidates**" in said(page)
    page.text_input(key="trace").set_value("nobody ever wrote this").run()
    assert "Loosen the filters" in said(page)


def test_a_rewrite_is_shown_against_its_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(store_url)
    seed.write_run(store, seed.RUN, steps=1)
    asked = seed.problem(__import__("random").Random(1))
    original = f"<think> wait {seed.HOSTILE} & so </think>"
    row = CuratedRow(asked, original, f"{original} \0 good", DropReason.KEPT, "digest-of-zero")
    store.write_curation(seed.RUN, "cold-start", [row])
    page = page_of("data", store_url, monkeypatch, set="cold-start")
    (changed,) = page.get("html")
    markup = changed.proto.body
    assert "<script" not in markup
    assert "&lt;script&gt;alert" in markup
    assert ">good</ins>" in markup or " good</ins>" in markup
    assert "\\x00" in markup
    assert "\\x1b[31m" in markup


def test_models_are_ordered_and_told_apart(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("evaluations", url, monkeypatch, left="r1", right="base")
    table = page.dataframe[0].value
    assert list(table["model"]) == list(seed.MODELS)
    assert (table["95 % from"] <= table["pass@1"]).all()
    assert (table["pass@1"] <= table["95 % to"]).all()
    assert [metric.label for metric in page.metric] == ["distill − student-rl", "r1 − base"]
    problems = page.dataframe[1].value
    assert list(problems["difference"]) == sorted(problems["difference"], reverse=True)
    assert "of 2 right" in said(page)


def test_one_problem_comes_from_the_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("evaluations", url, monkeypatch, pair="999999")
    assert "Neither model answered" in said(page)
    assert not page.error


def confirm(page: AppTest, change: str, why: str) -> None:
    """Fill in the dialog of a button, which AppTest closes with each run, and confirm it."""
    page.text_area(key="why").set_value(why)
    page.button(key=change).click().run()
    page.button(key=change).click()
    page.button(key="confirmed").click().run()


def test_a_model_is_promoted_after_a_note_and_rolled_back(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(OPERATOR, monkeypatch)
    page = page_of("models", url, monkeypatch)
    assert {metric.label: metric.value for metric in page.metric}["Champion"] == "version 2"
    page.button(key="promote").click().run()
    assert page.button(key="confirmed").disabled
    confirm(page, "promote", "shorter answers")
    entry = open_ledger(url).head("r1")
    assert entry is not None
    assert (entry.champion, entry.who, entry.why) == (3, "test operator", "shorter answers")
    page = page_of("models", url, monkeypatch)
    page.button(key="roll_back").click().run()
    confirm(page, "roll_back", "they were wrong")
    entry = open_ledger(url).head("r1")
    assert entry is not None
    assert (entry.champion, entry.action) == (2, "rollback")


def test_a_waiting_candidate_is_approved(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(Actor("test reviewer", Role.REVIEWER), monkeypatch)
    head, now = open_ledger(url).head("r1"), datetime.now(UTC)
    assert head is not None
    asked = approvals.ask(
        open_engine_to_write(url),
        model="r1",
        version=3,
        seen=head.sequence,
        run_id=seed.RUN,
        reasons=[f"better {seed.HOSTILE}"],
        at_timeout="reject",
        asked_at=now,
        expires_at=now + timedelta(hours=1),
    )
    page = page_of("operations", url, monkeypatch)
    assert "r1 version 3" in said(page)
    yes = f"Approve/{asked.id}"
    page.button(key=yes).click().run()
    page.text_area(key="answer_why").set_value("looked at it")
    page.button(key=yes).click().run()
    page.button(key=yes).click()
    page.button(key="answered").click().run()
    entry = open_ledger(url).head("r1")
    assert entry is not None
    assert (entry.champion, entry.who) == (3, "test reviewer")
    assert waiting.waiting_requests(views.open_views(url)) == []


def test_a_viewer_finds_every_change_greyed_out(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(VIEWER, monkeypatch)
    models = page_of("models", url, monkeypatch, version="1")
    assert models.button(key="promote").disabled
    assert models.button(key="roll_back").disabled
    assert page_of("operations", url, monkeypatch).button(key="launch").disabled


def test_the_history_of_a_version_is_a_graph(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(VIEWER, monkeypatch)
    page = page_of("models", url, monkeypatch, version="3")
    (graph,) = page.get("graphviz_chart")
    for stage in ("r1", "dev3", "sft-set", "dev2", "dev1", "cold-start", "zero"):
        assert f'label="{stage}\\n' in graph.proto.spec
    assert "pass@1 0.91 ≥ 0.60" in said(page)


def test_a_changed_setting_is_checked_and_launched(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(OPERATOR, monkeypatch)
    monkeypatch.setenv("R1_HOME", str(tmp_path))
    monkeypatch.setattr(detached, "COMMAND", (sys.executable, "-c", "print('it ran')"))
    page = page_of("operations", url, monkeypatch, sections=["gate", "recipe"])
    page.text_input(key="set/tiny/gate.min_safety").set_value("much").run()
    assert "gate.min_safety" in said(page)
    assert "no valid recipe" in page.warning[0].value
    page.text_input(key="set/tiny/gate.min_safety").set_value("0.5").run()
    page.number_input(key="set/tiny/seed").set_value(7).run()
    assert "--set 'gate.min_safety=0.5'" in said(page)
    page.button(key="launch").click().run()
    (launch,) = launches(tmp_path)
    assert set(launch.changes) == {"gate.min_safety=0.5", "seed=7"}
    assert launch.who == "test operator"
    assert launch.run_id.startswith("tiny-s7-")
    deadline = time.monotonic() + 60
    while launches(tmp_path)[0].alive and time.monotonic() < deadline:
        time.sleep(0.05)
    assert detached.log_tail(tmp_path, launch.id) == "it ran"


def test_without_a_server_it_says_how_to_get_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_of("operations", url, monkeypatch)
    assert "r1 up" in said(page)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    page = page_of("operations", url, monkeypatch)
    assert "does not answer" in said(page)
    assert "mend or unset PREFECT_API_URL" in said(page)


class Server(Orchestrator):
    """A Prefect server with one deployment and one run at work, which remembers what it is told."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/api")
        self.told: list[str] = []

    def deployments(self) -> list[Deployment]:
        return [Deployment("7", "r1-retrain/retrain", ("cron 0 3 * * *",), False, "pool", "", ())]

    def upcoming(self, limit: int) -> list[FlowRun]:
        return [FlowRun("2", "soon", "7", "Scheduled", False, datetime.now(UTC), None, 0.0)][:limit]

    def recent(self, limit: int) -> list[FlowRun]:
        return [FlowRun("1", "at work", "7", "Running", False, None, None, 9.0)][:limit]

    def cancel(self, flow_run: str) -> None:
        self.told.append(flow_run)


def test_a_flow_run_is_cancelled_after_it_was_confirmed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(OPERATOR, monkeypatch)
    server = Server()
    monkeypatch.setattr(places, "orchestrator", lambda: server)
    page = page_of("operations", url, monkeypatch)
    assert "r1-retrain/retrain · cron 0 3 * * *" in said(page)
    assert list(page.dataframe[0].value["run"]) == ["soon"]
    page.button(key="cancel/1").click().run()
    assert server.told == []
    page.button(key="cancel/1").click()
    page.button(key="end_confirmed").click().run()
    assert server.told == ["1"]
    assert not page.exception
    become(VIEWER, monkeypatch)
    assert page_of("operations", url, monkeypatch).button(key="cancel/1").disabled


def test_two_models_answer_and_are_rated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(OPERATOR, monkeypatch)
    page = page_of("playground", url, monkeypatch, tokens="48", left_version="1", right_version="3")
    asked = page.text_area(key="question").value
    assert json.loads(page.text_input(key="gold").value)["operators"] == "+-"
    page.button(key="ask").click().run(timeout=120)
    assert not page.exception
    assert not page.error
    assert {"accuracy", "format", "language"} <= {metric.label for metric in page.metric}
    assert page.expander[0].label == "Thinking"
    page.text_input(key="note").set_value("both the same").run()
    page.button(key="rate/both").click().run()
    assert "rate/both" not in {button.key for button in page.button}, "rated once"
    (opinion,) = opinions.opinions(views.open_views(url))
    assert (opinion.who, opinion.preferred, opinion.question) == ("test operator", "both", asked)
    assert (opinion.left_model, opinion.right_model) == ("r1 1", "r1 3")


def test_what_people_ask_is_only_text(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page: AppTest = page_of("playground", url, monkeypatch, question=seed.HOSTILE)
    assert page.text_area(key="question").value == seed.HOSTILE
    assert not any("script" in element.value for element in page.markdown)
