"""Alarms: what guards, monitoring and retraining want a person to know.

An alarm says what was seen and what was done about it. It is raised once: the same alarm of the
same place (source, run, stage, step, name) replaces the one before, because a killed run does
things again.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from sqlalchemy import Engine, Index, delete, insert
from sqlalchemy.orm import Mapped, mapped_column

from services.store.opening import open_engine_to_write, storage_errors
from services.store.schema import Base, ModelText

AlarmSource = Literal["guard", "monitor", "retrain"]
AlarmAction = Literal["warn", "pause", "rollback"]


class Alarm(NamedTuple):
    """One thing that went wrong, or is about to."""

    source: AlarmSource
    """Who noticed: a guard of a training stage, the champion's monitor, a retraining."""
    name: str
    """What it watches, such as ``entropy_collapse``."""
    action: AlarmAction
    """What was done; a warning changes nothing."""
    message: str
    """One sentence with the value and the bound."""
    run_id: str = ""
    """The run it is about; empty where there is none."""
    stage: str = ""
    """The stage, or the registered model where there is no run."""
    step: int = 0
    """Optimizer steps done; 0 where there are none."""
    value: float | None = None
    bound: float | None = None


class Alarms(Base):
    """The alarms of all runs."""

    __tablename__ = "alarms"
    __table_args__ = (
        Index("alarms_by_run", "run_id", "stage", "step"),
        Index("alarms_by_at", "at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    source: Mapped[str]
    name: Mapped[str]
    action: Mapped[str]
    message: Mapped[str] = mapped_column(ModelText)
    run_id: Mapped[str]
    stage: Mapped[str]
    step: Mapped[int]
    value: Mapped[float | None]
    bound: Mapped[float | None]


_PLACE = ("source", "name", "run_id", "stage", "step")


def open_alarms(url: str) -> "AlarmBook":
    """The alarms of a store; a store that is not there is created.

    Raises:
        StoreError: The store cannot be written, or has another schema.
    """
    return AlarmBook(open_engine_to_write(url))


class AlarmBook:
    """Where alarms are raised."""

    def __init__(
        self, engine: Engine, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Use the store behind ``engine``."""
        self._engine = engine
        self._now = now

    def raise_alarm(self, alarm: Alarm) -> None:
        """Write an alarm; the same one of the same place is replaced."""
        same_place = (getattr(Alarms, name) == getattr(alarm, name) for name in _PLACE)
        with storage_errors(self._engine), self._engine.begin() as connection:
            connection.execute(delete(Alarms).where(*same_place))
            connection.execute(insert(Alarms).values(at=self._now(), **alarm._asdict()))

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()
