"""The monitor as a flow: what it tells, and whom; how it measures is tested beside the service."""

from datetime import UTC, datetime

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

import services.monitoring
from flows import events, monitor
from services.monitoring import Change, Report
from services.store import pool, store_url
from services.store.ledger import Promotion, open_ledger
from services.store.opening import open_engine_to_write
from services.types import Problem


@pytest.fixture
def told(tmp_path, monkeypatch, home):
    """Events that were told, in a state folder of its own."""
    monkeypatch.setenv("R1_HOME", str(tmp_path))
    monkeypatch.delenv("R1_STORE_URL", raising=False)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "retraining.toml").write_text("min_new_problems = 2\n")
    said: list[tuple[str, str, dict]] = []
    monkeypatch.setattr(monitor, "tell", lambda *words: said.append(words))
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield said


def report(worse: bool) -> Report:
    change = Change("accuracy", 0.9, 0.5, 0.4, 0.3, 0.05, worse, "accuracy fell")
    return Report("r1", 3, 1, "monitor-r1-v3", (change,))


def test_without_a_champion_there_is_nothing_to_watch(told):
    said = monitor.monitor()
    assert said["alarms"] == []
    assert told == []


@pytest.mark.parametrize("worse", [True, False])
def test_a_champion_that_got_worse_is_told(worse, told, monkeypatch):
    open_ledger(store_url()).append(
        Promotion("r1", 1, "promote", 3, None, "anna", "first", datetime.now(UTC))
    )
    monkeypatch.setattr(monitor, "tell_occasions", list)
    monkeypatch.setattr(services.monitoring, "recheck", lambda *_: report(worse))
    said = monitor.monitor()
    assert said["alarms"] == (["accuracy fell"] if worse else [])
    expected = [(events.CHAMPION_REGRESSED, "r1", {"version": 3, "alarms": ["accuracy fell"]})]
    assert told == (expected if worse else [])


def test_enough_new_problems_are_told(told):
    engine = open_engine_to_write(store_url())
    problems = [Problem(f"p{n}", "exact", f"say {n} please", str(n), "en") for n in range(2)]
    pool.add(engine, problems[:1], origin="new.jsonl", who="anna")
    assert monitor.tell_occasions() == []
    pool.add(engine, problems[1:], origin="new.jsonl", who="anna")
    engine.dispose()
    assert monitor.tell_occasions() == [events.PROBLEMS_ENOUGH]
    assert [event for event, _, _ in told] == [events.PROBLEMS_ENOUGH]


def test_without_a_server_nobody_is_told(home):
    assert events.tell(events.CHAMPION_CHANGED, "r1", {}) is False
