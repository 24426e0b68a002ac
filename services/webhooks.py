"""Telling others: a signed message to subscribers when a champion changes or an alarm is raised.

MLflow has webhooks of its own, but its server sends them and not its library, so without a server
nobody would be told; and its server refuses loopback. Ours follow the ledger. A message is written
to the store before it is sent, so one that was not sent is sent later; a subscriber may get it
twice (same ``webhook-id``) and gets the messages in order. Nobody waits for a subscriber: a thread
sends, tries a few times, and writes down how it went.

Headers are those of Standard Webhooks: ``webhook-id``, ``webhook-timestamp`` (seconds),
``webhook-signature`` (``v1,`` and base64 of HMAC-SHA256 over ``id.timestamp.body``, keyed with the
secret's bytes). Addresses are https, or http to this machine. Redirects are not followed.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import httpx

from services.errors import RegistryError, StoreError, WebhookError
from services.store import webhooks as table
from services.store.alarms import Alarm
from services.store.ledger import Promotion, SqlLedger
from services.store.opening import open_engine_to_write
from services.store.webhooks import Delivery, Subscription

if TYPE_CHECKING:
    from sqlalchemy import Engine

MOST_ATTEMPTS: Final = 12
"""A message that failed so often is given up; what was said of it stays in the store."""
_PAUSES_SECONDS: Final = (0.0, 0.5, 2.0)
"""Before each attempt that one event gives a subscriber."""
_TIMEOUT_SECONDS: Final = 5.0


def require_deliverable(url: str) -> None:
    """Refuse an address that messages must not go to.

    Raises:
        WebhookError: It is neither https nor http to this machine, or holds a password.
    """
    parts = urlsplit(url)
    mend = "Give an https address, or http to this machine, as in http://127.0.0.1:9000/changes"
    if not parts.hostname or parts.scheme not in {"https", "http"}:
        raise WebhookError(f"{url!r} is no web address", mend)
    if parts.username or parts.password:
        raise WebhookError("the address holds a name or password, which would be kept", mend)
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise WebhookError(f"http to {parts.hostname} could be read on the way", mend)


def open_announcer(url: str) -> "Announcer":
    """The announcer of a store.

    Raises:
        StoreError: The store cannot be written, or has another schema.
    """
    return Announcer(open_engine_to_write(url))


class Announcer:
    """Knows the subscribers and sends them what they are owed."""

    def __init__(self, engine: "Engine", *, pauses: tuple[float, ...] = _PAUSES_SECONDS) -> None:
        """Use the store behind ``engine``; ``pauses`` come before the attempts, in seconds."""
        self._engine = engine
        self._pauses = pauses
        self._one_at_a_time = threading.Lock()

    def subscribe(self, url: str, *, who: str, model: str = "", secret_variable: str = "") -> int:
        """Tell an address of every change from now on; the subscription's number.

        Args:
            url: https, or http to this machine.
            who: Who asks for it.
            model: Registered model; empty for all.
            secret_variable: Name of the environment variable that holds the signing secret.

        Raises:
            WebhookError: The address is not allowed, or the variable is not set.
        """
        require_deliverable(url)
        if secret_variable and not os.environ.get(secret_variable):
            raise WebhookError(
                f"the environment variable {secret_variable} is not set",
                "Set it to the secret, here and wherever champions change",
            )
        now = datetime.now(UTC)
        return table.subscribe(
            self._engine, url=url, model=model, secret_variable=secret_variable, who=who, at=now
        )

    def unsubscribe(self, number: int) -> None:
        """Tell an address nothing more."""
        if not table.unsubscribe(self._engine, number, datetime.now(UTC)):
            raise RegistryError(
                f"there is no subscription {number}", "See what there is with: r1 webhooks list"
            )

    def promotion(self, entry: Promotion) -> None:
        """Tell of a change of champion; returns at once, and never fails for a subscriber."""
        self._owe(f"promotion/{entry.model}/{entry.sequence}", entry.model, _told(entry))

    def alarm(self, alarm: Alarm) -> None:
        """Tell of an alarm; returns at once, and never fails for a subscriber."""
        place = f"{alarm.source}/{alarm.name}/{alarm.run_id}/{alarm.stage}/{alarm.step}"
        self._owe(f"alarm/{place}", alarm.stage, {"type": "alarm", **alarm._asdict()})

    def catch_up(self) -> int:
        """Owe what a dead process could not write down, then send; how many are still owed."""
        ledger = SqlLedger(self._engine)
        now = datetime.now(UTC)
        for subscriber in table.subscriptions(self._engine):
            for model in ledger.models():
                if subscriber.model not in ("", model):
                    continue
                for entry in ledger.history(model):
                    if entry.at >= subscriber.added_at:
                        event = f"promotion/{model}/{entry.sequence}"
                        table.enqueue(self._engine, subscriber.id, event, _told(entry), now)
        self.send()
        return len(table.owed(self._engine, MOST_ATTEMPTS))

    def send(self) -> None:
        """Send what is owed, with a few attempts; who fails gets no later message before."""
        with self._one_at_a_time:
            for pause in self._pauses:
                time.sleep(pause)
                owed = table.owed(self._engine, MOST_ATTEMPTS)
                if not owed:
                    return
                self._attempt(owed)

    def _owe(self, event: str, model: str, body: Mapping[str, Any]) -> None:
        try:
            subscribers = table.subscriptions(self._engine, model)
            for subscriber in subscribers:
                table.enqueue(self._engine, subscriber.id, event, body, datetime.now(UTC))
        except StoreError:
            return  # the change stands; ``catch_up`` finds it in the ledger
        if subscribers:
            # No daemon: a command that has said its word still lets the message out.
            threading.Thread(target=self._send_quietly, name=f"webhooks {event}").start()

    def _send_quietly(self) -> None:
        with suppress(StoreError):  # what is not sent is owed
            self.send()

    def _attempt(self, owed: list[Delivery]) -> None:
        subscribers = {row.id: row for row in table.subscriptions(self._engine)}
        failing: set[int] = set()
        for delivery in owed:
            subscriber = subscribers.get(delivery.subscription)
            if subscriber is None or delivery.subscription in failing:
                continue
            error = _post(subscriber, delivery)
            table.record_attempt(self._engine, delivery, error, datetime.now(UTC))
            if error:
                failing.add(delivery.subscription)


def signature(secret: str, message_id: str, timestamp: int, body: str) -> str:
    """The value of ``webhook-signature``, for whoever signs and whoever checks."""
    signed = f"{message_id}.{timestamp}.{body}".encode()
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def _told(entry: Promotion) -> dict[str, Any]:
    """A change of champion as a message."""
    return {
        "type": "champion",
        **entry._asdict(),
        "at": entry.at.isoformat(),
        "uri": f"models:/{entry.model}/{entry.champion}",
    }


def _post(subscriber: Subscription, delivery: Delivery) -> str:
    """Send one message; why it failed, or nothing."""
    body = json.dumps(delivery.body, ensure_ascii=False, sort_keys=True)
    message_id, now = quote(delivery.event), int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
    }
    if subscriber.secret_variable:
        secret = os.environ.get(subscriber.secret_variable)
        if not secret:
            return f"the environment variable {subscriber.secret_variable} is not set"
        headers["webhook-signature"] = signature(secret, message_id, now, body)
    local = subscriber.url.startswith("http:")
    try:
        with httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=not local) as client:
            status = client.post(subscriber.url, content=body.encode(), headers=headers).status_code
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "" if 200 <= status < 300 else f"answered {status}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
