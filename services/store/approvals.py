"""Requests for approval: candidates that passed the gate and wait for a person.

A candidate is asked for once per champion: the version and the ledger entry that the gate saw
together name the request, so a run that is repeated finds the answer instead of asking again. An
answer is written only over ``waiting``, in one statement: of two who answer at once, one is told.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Engine, UniqueConstraint, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from services.store.opening import reading, storage_errors
from services.store.schema import Base

ApprovalState = Literal["waiting", "approved", "rejected", "expired"]
AtTimeout = Literal["reject", "approve"]


class ApprovalRequest(NamedTuple):
    """One request and its answer."""

    id: int
    model: str
    """Name of the registered model."""
    version: int
    """The candidate."""
    seen: int
    """Sequence of the ledger entry that the gate compared with; 0 if there was no champion."""
    run_id: str
    """The pipeline that asks; empty if none does."""
    reasons: list[str]
    """What the gate said."""
    state: ApprovalState
    at_timeout: AtTimeout
    """What the policy does when nobody answers."""
    asked_at: datetime
    expires_at: datetime
    who: str
    """Who answered; empty while it waits."""
    why: str
    decided_at: datetime | None
    outcome: str
    """What came of a yes, such as the champion it became; empty until that is done."""
    flow_run: str
    """The run of Prefect's that is suspended until the answer; empty if none is."""


class Approvals(Base):
    """The requests."""

    __tablename__ = "approvals"
    __table_args__ = (UniqueConstraint("model", "version", "seen"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[int]
    seen: Mapped[int]
    run_id: Mapped[str]
    reasons: Mapped[list[str]]
    state: Mapped[str]
    at_timeout: Mapped[str]
    asked_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    who: Mapped[str]
    why: Mapped[str]
    decided_at: Mapped[datetime | None]
    outcome: Mapped[str]
    flow_run: Mapped[str] = mapped_column(server_default="")


def ask(
    engine: Engine,
    *,
    model: str,
    version: int,
    seen: int,
    run_id: str,
    reasons: Sequence[str],
    at_timeout: AtTimeout,
    asked_at: datetime,
    expires_at: datetime,
) -> ApprovalRequest:
    """Write a request, or find the one that was written before, whatever became of it."""
    facts: dict[str, Any] = {
        "model": model,
        "version": version,
        "seen": seen,
        "run_id": run_id,
        "reasons": list(reasons),
        "at_timeout": at_timeout,
        "asked_at": asked_at,
        "expires_at": expires_at,
        "state": "waiting",
        "who": "",
        "why": "",
        "outcome": "",
        "flow_run": "",
    }
    try:
        with storage_errors(engine), engine.begin() as connection:
            connection.execute(insert(Approvals).values(facts))
    except IntegrityError:
        pass  # asked before
    same = (Approvals.model == model, Approvals.version == version, Approvals.seen == seen)
    return _rows(engine, *same)[0]


def answer(
    engine: Engine, number: int, state: ApprovalState, *, who: str, why: str, at: datetime
) -> bool:
    """Write an answer; False if the request does not wait any more."""
    with storage_errors(engine), engine.begin() as connection:
        written = connection.execute(
            update(Approvals)
            .where(Approvals.id == number, Approvals.state == "waiting")
            .values(state=state, who=who, why=why, decided_at=at)
        )
        return bool(written.rowcount)


def settle(engine: Engine, number: int, outcome: str) -> None:
    """Write down what came of a yes."""
    with storage_errors(engine), engine.begin() as connection:
        connection.execute(update(Approvals).where(Approvals.id == number).values(outcome=outcome))


def hold(engine: Engine, number: int, flow_run: str) -> None:
    """Write down which run is suspended until the answer; an empty name: none is any more."""
    with storage_errors(engine), engine.begin() as connection:
        connection.execute(
            update(Approvals).where(Approvals.id == number).values(flow_run=flow_run)
        )


def answered_in_suspense(engine: Engine) -> list[ApprovalRequest]:
    """Requests that were answered and whose run may not have been told."""
    return _rows(engine, Approvals.state != "waiting", Approvals.flow_run != "")


def request_of(engine: Engine, number: int) -> ApprovalRequest | None:
    """One request by its number."""
    return next(iter(_rows(engine, Approvals.id == number)), None)


def requests(
    engine: Engine, state: ApprovalState | None = None, model: str | None = None
) -> list[ApprovalRequest]:
    """Requests, oldest first: all, those in one state, those of one model."""
    conditions = [] if state is None else [Approvals.state == state]
    conditions += [] if model is None else [Approvals.model == model]
    return _rows(engine, *conditions)


def unsettled(engine: Engine) -> list[ApprovalRequest]:
    """Requests that are to become champion, and whose promotion was not written down."""
    said_yes = (Approvals.state == "approved") | (
        (Approvals.state == "expired") & (Approvals.at_timeout == "approve")
    )
    return _rows(engine, said_yes, Approvals.outcome == "")


def _rows(engine: Engine, *conditions: Any) -> list[ApprovalRequest]:
    columns = [getattr(Approvals, name) for name in ApprovalRequest._fields]
    with reading(engine) as connection:
        found = connection.execute(select(*columns).where(*conditions).order_by(Approvals.id))
        return [ApprovalRequest(*row) for row in found]
