"""Approval: asked once, answered once, and what is owed after a yes is made whoever died."""

from datetime import UTC, datetime, timedelta

import pytest

from services.approvals import Approvals
from services.errors import LaunchError, RegistryError
from services.policies import Approval
from services.store import approvals as table
from services.store.ledger import Promotion
from services.store.opening import open_engine_to_write

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=3)


class Line:
    """As much of a registry as an approval needs: a ledger in memory that refuses what is late."""

    def __init__(self):
        self.entries = []
        self.broken = False

    def history(self, model):
        return [entry for entry in self.entries if entry.model == model]

    def promote(self, model, version, *, who, why, seen):
        if self.broken:
            raise KeyboardInterrupt
        history = self.history(model)
        if history and history[-1].champion == version:
            return history[-1]
        if len(history) != seen:
            raise RegistryError("the champion was changed meanwhile", "Decide again")
        self.entries.append(
            Promotion(model, seen + 1, "promote", version, None, who, why, datetime.now(UTC))
        )
        return self.entries[-1]


@pytest.fixture
def line():
    return Line()


@pytest.fixture
def book(tmp_path, line):
    return Approvals(open_engine_to_write(f"sqlite:///{tmp_path / 'store.db'}"), line)


def ask(book, version=2, seen=0, at_timeout="reject"):
    terms = Approval(required="always", hours=2, at_timeout=at_timeout)
    return book.request(
        model="r1", version=version, seen=seen, reasons=["good"], terms=terms, run_id="x", now=NOON
    )


def test_a_yes_makes_the_candidate_champion_with_who_and_why(book, line):
    request = ask(book)
    assert book.pending() == [request]
    answered = book.decide(request.id, approve=True, who="ann", why="read ten samples", now=NOON)
    assert (answered.state, answered.who) == ("approved", "ann")
    assert answered.outcome == "champion since entry 1"
    assert [entry.champion for entry in line.entries] == [2]
    assert line.entries[0].why == "approved by ann: read ten samples"
    assert book.pending() == []


def test_a_no_leaves_the_champion(book, line):
    request = ask(book)
    answered = book.decide(request.id, approve=False, who="ann", why="too long", now=NOON)
    assert (answered.state, answered.outcome) == ("rejected", "")
    assert line.entries == []


def test_a_candidate_is_asked_for_once_per_champion(book):
    first = ask(book)
    book.decide(first.id, approve=False, who="ann", why="no", now=NOON)
    assert ask(book).state == "rejected"
    assert ask(book, seen=1).state == "waiting"
    assert [row.id for row in book.all("r1")] == [1, 2]


def test_of_two_answers_the_second_is_told(book):
    request = ask(book)
    book.decide(request.id, approve=False, who="ann", why="slow", now=NOON)
    with pytest.raises(RegistryError, match=r"was rejected by ann \(slow\)"):
        book.decide(request.id, approve=True, who="bob", why="fast", now=NOON)
    with pytest.raises(RegistryError, match="no request 9"):
        book.decide(9, approve=True, who="bob", why="fast", now=NOON)
    with pytest.raises(RegistryError, match="who and why"):
        book.decide(request.id, approve=True, who="bob", why=" ", now=NOON)


@pytest.mark.parametrize(("at_timeout", "champions"), [("reject", []), ("approve", [2])])
def test_when_time_is_up_the_policy_decides(book, line, at_timeout, champions):
    request = ask(book, at_timeout=at_timeout)
    assert book.expire(NOON + timedelta(hours=1)) == []
    (ended,) = book.expire(LATER)
    assert (ended.id, ended.state, ended.who) == (request.id, "expired", "policy")
    assert "nobody answered within 2 h" in ended.why
    assert [entry.champion for entry in line.entries] == champions
    assert book.expire(LATER) == []


def test_an_answer_that_comes_too_late_is_refused(book, line):
    request = ask(book)
    with pytest.raises(RegistryError, match="it was expired by policy"):
        book.decide(request.id, approve=True, who="ann", why="sorry", now=LATER)
    assert line.entries == []


def test_a_yes_on_an_older_champion_is_kept_and_not_made(book, line):
    request = ask(book)
    line.promote("r1", 7, who="bob", why="by hand", seen=0)
    with pytest.raises(RegistryError, match="changed meanwhile"):
        book.decide(request.id, approve=True, who="ann", why="good", now=NOON)
    found = book.get(request.id)
    assert found.state == "approved"
    assert found.outcome == "not promoted: the champion was changed meanwhile"
    assert book.expire(LATER) == []
    assert [entry.champion for entry in line.entries] == [7]


def test_a_promotion_that_was_owed_is_made_by_the_next_who_looks(book, line):
    request = ask(book)
    line.broken = True
    with pytest.raises(KeyboardInterrupt):
        book.decide(request.id, approve=True, who="ann", why="good", now=NOON)
    assert book.get(request.id).outcome == ""
    line.broken = False
    book.expire(NOON)
    assert book.get(request.id).outcome == "champion since entry 1"


def test_a_promotion_that_was_made_but_not_written_down_is_found(book, line):
    request = ask(book)
    line.promote("r1", 2, who="ann", why="approved by ann: good", seen=0)
    line.promote("r1", 3, who="bob", why="later", seen=1)
    engine = book._engine
    assert table.answer(engine, request.id, "approved", who="ann", why="good", at=NOON)
    book.expire(NOON)
    assert book.get(request.id).outcome == "champion since entry 1"


class Prefect:
    """A server that may be away."""

    def __init__(self) -> None:
        self.away = False
        self.completed: list[tuple[str, str]] = []

    def __call__(self, flow_run: str, said: str) -> None:
        if self.away:
            raise LaunchError("the Prefect server does not answer", "Start it")
        self.completed.append((flow_run, said))


def test_the_run_that_is_suspended_for_an_answer_ends_with_it(tmp_path, line):
    prefect = Prefect()
    engine = open_engine_to_write(f"sqlite:///{tmp_path / 'store.db'}")
    book = Approvals(engine, line, prefect)
    assert book.hold("x", "run-7") is None, "nothing waits"
    request = ask(book)
    held = book.hold("x", "run-7")
    assert held is not None
    assert held.id == request.id
    prefect.away = True
    book.decide(request.id, approve=False, who="anna", why="worse in Chinese", now=NOON)
    assert prefect.completed == []
    prefect.away = False
    for _ in range(2):
        book.expire(NOON)
    said = "rejected by anna: worse in Chinese"
    assert prefect.completed == [("run-7", said)], "by the next schedule, and once"


def test_time_out_ends_the_run_too(tmp_path, line):
    prefect = Prefect()
    engine = open_engine_to_write(f"sqlite:///{tmp_path / 'store.db'}")
    book = Approvals(engine, line, prefect)
    ask(book, at_timeout="approve")
    book.hold("x", "run-8")
    book.expire(NOON + timedelta(hours=3))
    ((run, said),) = prefect.completed
    assert run == "run-8"
    assert said.endswith("the policy says approve; champion since entry 1")
