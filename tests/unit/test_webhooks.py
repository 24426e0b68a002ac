"""Webhooks: which addresses are allowed, what arrives, in which order, and what is still owed."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.errors import RegistryError, WebhookError
from services.store import webhooks as table
from services.store.alarms import Alarm
from services.store.ledger import Promotion, SqlLedger
from services.store.opening import open_engine_to_write
from services.webhooks import Announcer, require_deliverable, signature


class Receiver:
    """A subscriber on loopback that keeps what it is sent and answers as it is told to."""

    def __init__(self):
        self.status = [200]
        self.got = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                receiver.got.append((dict(self.headers.items()), body))
                status = receiver.status.pop(0) if len(receiver.status) > 1 else receiver.status[0]
                self.send_response(status)
                if status == 302:
                    self.send_header("location", receiver.url)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/changes"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def champions(self):
        return [json.loads(body)["champion"] for _, body in self.got]

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.stop()


@pytest.fixture
def engine(tmp_path):
    return open_engine_to_write(f"sqlite:///{tmp_path / 'store.db'}")


@pytest.fixture
def announcer(engine):
    return Announcer(engine, pauses=(0.0, 0.0, 0.0))


def entry(sequence, champion, model="r1"):
    return Promotion(model, sequence, "promote", champion, None, "ann", "好", datetime.now(UTC))


def finished():
    for thread in threading.enumerate():
        if thread.name.startswith("webhooks"):
            thread.join()


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://example.org/hook", True),
        ("http://127.0.0.1:9000/hook", True),
        ("http://[::1]:9000/", True),
        ("http://localhost/", True),
        ("http://example.org/hook", False),
        ("http://10.0.0.1/hook", False),
        ("http://localhost.example.org/", False),
        ("ftp://example.org/", False),
        ("https://ann:word@example.org/", False),
        ("file:///etc/passwd", False),
        ("https://", False),
    ],
)
def test_messages_go_over_https_or_stay_on_this_machine(url, allowed):
    if allowed:
        require_deliverable(url)
    else:
        with pytest.raises(WebhookError):
            require_deliverable(url)


def test_a_change_arrives_signed_and_once(announcer, engine, receiver, monkeypatch):
    monkeypatch.setenv("CHANGES_SECRET", "s3")
    number = announcer.subscribe(receiver.url, who="ann", secret_variable="CHANGES_SECRET")
    announcer.promotion(entry(1, 4))
    finished()
    announcer.send()
    ((headers, body),) = receiver.got
    told = json.loads(body)
    assert (told["type"], told["uri"], told["why"]) == ("champion", "models:/r1/4", "好")
    assert headers["webhook-id"] == "promotion/r1/1"
    signed = signature("s3", headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert headers["webhook-signature"] == signed
    (delivery,) = table.deliveries(engine, number)
    assert delivery.sent_at is not None
    assert (delivery.attempts, delivery.error) == (1, "")


def test_a_secret_that_is_not_there_sends_nothing(announcer, engine, receiver, monkeypatch):
    with pytest.raises(WebhookError, match="CHANGES_SECRET is not set"):
        announcer.subscribe(receiver.url, who="ann", secret_variable="CHANGES_SECRET")
    monkeypatch.setenv("CHANGES_SECRET", "s3")
    number = announcer.subscribe(receiver.url, who="ann", secret_variable="CHANGES_SECRET")
    monkeypatch.delenv("CHANGES_SECRET")
    announcer.promotion(entry(1, 4))
    finished()
    assert receiver.got == []
    assert "is not set" in table.deliveries(engine, number)[0].error


def test_only_the_model_that_was_asked_for(announcer, receiver):
    announcer.subscribe(receiver.url, who="ann", model="r1-distill-small")
    announcer.promotion(entry(1, 4))
    announcer.promotion(entry(1, 9, model="r1-distill-small"))
    finished()
    assert receiver.champions == [9]


def test_a_failure_is_tried_again_and_keeps_the_order(announcer, engine, receiver):
    receiver.status = [500, 200]
    number = announcer.subscribe(receiver.url, who="ann")
    announcer.promotion(entry(1, 4))
    finished()
    announcer.promotion(entry(2, 5))
    finished()
    assert receiver.champions == [4, 4, 5]
    assert [row.attempts for row in table.deliveries(engine, number)] == [2, 1]


def test_who_does_not_answer_is_left_with_what_went_wrong(announcer, engine, receiver):
    receiver.status = [302]
    number = announcer.subscribe(receiver.url, who="ann")
    announcer.promotion(entry(1, 4))
    announcer.promotion(entry(2, 5))
    finished()
    assert set(receiver.champions) == {4}, "a redirect is not followed, a later message waits"
    first, second = table.deliveries(engine, number)
    assert (first.error, first.sent_at) == ("answered 302", None)
    assert second.attempts == 0
    for _ in range(6):
        announcer.send()
    assert table.deliveries(engine, number)[0].attempts == 12, "then it is given up"


def test_a_closed_port_never_blocks_a_promotion(announcer, engine):
    number = announcer.subscribe("http://127.0.0.1:9/", who="ann")
    announcer.promotion(entry(1, 4))
    finished()
    assert "ConnectError" in table.deliveries(engine, number)[0].error


def test_what_a_dead_process_left_is_found_in_the_ledger(announcer, engine, receiver):
    ledger = SqlLedger(engine)
    ledger.append(entry(1, 3)._replace(at=datetime.now(UTC) - timedelta(days=1)))
    announcer.subscribe(receiver.url, who="ann")
    ledger.append(entry(2, 4))
    ledger.append(entry(3, 5))
    assert announcer.catch_up() == 0
    assert receiver.champions == [4, 5], "not what was before the subscription"
    assert announcer.catch_up() == 0
    assert receiver.champions == [4, 5]


def test_an_alarm_is_told_and_an_ended_subscription_is_not(announcer, receiver):
    number = announcer.subscribe(receiver.url, who="ann")
    alarm = Alarm("monitor", "accuracy", "warn", "worse", run_id="x", stage="r1", step=1)
    announcer.alarm(alarm)
    finished()
    assert json.loads(receiver.got[0][1])["message"] == "worse"
    announcer.unsubscribe(number)
    announcer.promotion(entry(1, 4))
    finished()
    assert len(receiver.got) == 1
    with pytest.raises(RegistryError, match="no subscription"):
        announcer.unsubscribe(number)
