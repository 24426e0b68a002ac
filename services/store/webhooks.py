"""Who is told of changes, and what was told: subscriptions and their deliveries.

A delivery is written before it is tried, so what a dead process did not send is still owed. The
secret that signs is not kept here, only the name of the environment variable that holds it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Engine, ForeignKey, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from services.store.opening import reading, storage_errors
from services.store.schema import Base


class Subscription(NamedTuple):
    """An address that is told of changes."""

    id: int
    url: str
    model: str
    """Registered model; empty for all."""
    secret_variable: str
    """Environment variable that holds the secret; empty: unsigned."""
    who: str
    added_at: datetime
    ended_at: datetime | None


class Delivery(NamedTuple):
    """One message to one subscriber."""

    subscription: int
    event: str
    """Names what happened, such as ``promotion/r1/7``; told once to each subscriber."""
    body: dict[str, Any]
    attempts: int
    error: str
    """Why the last attempt failed; empty if it did not."""
    added_at: datetime
    sent_at: datetime | None


class Subscriptions(Base):
    """The addresses."""

    __tablename__ = "subscriptions"

    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str]
    model: Mapped[str]
    secret_variable: Mapped[str]
    who: Mapped[str]
    added_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Deliveries(Base):
    """The messages."""

    __tablename__ = "deliveries"

    subscription: Mapped[int] = mapped_column(ForeignKey("subscriptions.id"), primary_key=True)
    event: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any]]
    attempts: Mapped[int]
    error: Mapped[str]
    added_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]


def subscribe(
    engine: Engine, *, url: str, model: str, secret_variable: str, who: str, at: datetime
) -> int:
    """Add a subscription; its number."""
    facts = {
        "url": url,
        "model": model,
        "secret_variable": secret_variable,
        "who": who,
        "added_at": at,
    }
    with storage_errors(engine), engine.begin() as connection:
        added = insert(Subscriptions).values(facts).returning(Subscriptions.id)
        return connection.execute(added).scalar_one()


def unsubscribe(engine: Engine, number: int, at: datetime) -> bool:
    """End a subscription; False if there is none that runs."""
    with storage_errors(engine), engine.begin() as connection:
        ended = connection.execute(
            update(Subscriptions)
            .where(Subscriptions.id == number, Subscriptions.ended_at.is_(None))
            .values(ended_at=at)
        )
        return bool(ended.rowcount)


def subscriptions(engine: Engine, model: str | None = None) -> list[Subscription]:
    """Those that run; with a model, those that are told of it."""
    query = select(Subscriptions.__table__).where(Subscriptions.ended_at.is_(None))
    if model is not None:
        query = query.where(Subscriptions.model.in_(["", model]))
    with reading(engine) as connection:
        rows = connection.execute(query.order_by(Subscriptions.id)).mappings()
        return [Subscription(**row) for row in rows]


def enqueue(
    engine: Engine, subscription: int, event: str, body: Mapping[str, Any], at: datetime
) -> None:
    """Owe a message to a subscriber; one that is owed or was sent stays as it is."""
    row = {
        "subscription": subscription,
        "event": event,
        "body": dict(body),
        "attempts": 0,
        "error": "",
        "added_at": at,
    }
    dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
    with storage_errors(engine), engine.begin() as connection:
        connection.execute(dialect.insert(Deliveries).on_conflict_do_nothing(), [row])


def owed(engine: Engine, most_attempts: int) -> list[Delivery]:
    """Messages that were not sent and not given up, in the order they were written."""
    query = (
        select(Deliveries.__table__)
        .join(Subscriptions, Deliveries.subscription == Subscriptions.id)
        .where(
            Deliveries.sent_at.is_(None),
            Deliveries.attempts < most_attempts,
            Subscriptions.ended_at.is_(None),
        )
    )
    return _deliveries(engine, query)


def deliveries(engine: Engine, subscription: int) -> list[Delivery]:
    """All messages to one subscriber, oldest first."""
    query = select(Deliveries.__table__).where(Deliveries.subscription == subscription)
    return _deliveries(engine, query)


def record_attempt(engine: Engine, delivery: Delivery, error: str, at: datetime) -> None:
    """Write down how an attempt went."""
    with storage_errors(engine), engine.begin() as connection:
        connection.execute(
            update(Deliveries)
            .where(
                Deliveries.subscription == delivery.subscription,
                Deliveries.event == delivery.event,
            )
            .values(attempts=Deliveries.attempts + 1, error=error, sent_at=None if error else at)
        )


def _deliveries(engine: Engine, query: Any) -> list[Delivery]:
    with reading(engine) as connection:
        rows = connection.execute(query.order_by(Deliveries.added_at, Deliveries.event))
        return [Delivery(**row) for row in rows.mappings()]
