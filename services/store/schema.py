"""The tables: what one store holds, laid out for pages that read little of much.

A million completions stay quick to look through because rows are narrow where they are searched
and lie in the order they are asked for: rollouts by stage and step, metrics by stage and name; on
SQLite such a table is its own index (WITHOUT ROWID). The long texts lie beside them, and problems
are stored once each. A stage taken from another run owns no rows: ``source_id`` says whose to read.
Changes here need a revision in infra/migrations and a new ``REVISION``.
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

REVISION: Final = "0008"
"""The revision of infra/migrations that makes exactly these tables."""


class Moment(TypeDecorator[datetime]):
    """A point in time; comes back in UTC from databases that forget the zone, too."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Everything is stored in UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """SQLite gives moments back without a zone."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class ModelText(TypeDecorator[str]):
    r"""Text a model wrote; NUL and lone surrogates, which no database takes, become ``\x…``."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Escape what cannot be stored, and nothing else."""
        if value is None:
            return None
        return value.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


class Base(DeclarativeBase):
    """Python types as column types."""

    type_annotation_map = {  # noqa: RUF012 (read by SQLAlchemy as it stands)
        str: Text,
        float: Double,
        datetime: Moment,
        dict[str, Any]: JSON,
        list[str]: JSON,
    }


class Runs(Base):
    """One pipeline: a recipe and a seed."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    recipe_name: Mapped[str]
    recipe_digest: Mapped[str]
    recipe: Mapped[str]
    """The resolved recipe as JSON."""
    seed: Mapped[int]
    state: Mapped[str]
    summary: Mapped[str]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Stages(Base):
    """One stage of a run; what it wrote hangs on its number."""

    __tablename__ = "stages"
    __table_args__ = (UniqueConstraint("run_id", "name"), Index("stages_by_key", "key"))

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    name: Mapped[str]
    kind: Mapped[str]
    key: Mapped[str]
    """Digest of settings and inputs: same key, same result."""
    state: Mapped[str]
    source_id: Mapped[int | None] = mapped_column(ForeignKey("stages.id"))
    """The stage that did the work, where this one only took its result."""
    inputs: Mapped[dict[str, Any]]
    attributes: Mapped[dict[str, Any]]
    total_steps: Mapped[int]
    last_step: Mapped[int]
    output_path: Mapped[str]
    output_digest: Mapped[str]
    seconds: Mapped[float]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    """When it last wrote anything: a killed stage stays ``running`` but grows silent."""
    ended_at: Mapped[datetime | None]


class Problems(Base):
    """A question, stored once however often it is asked."""

    __tablename__ = "problems"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    """The id its source gave it."""
    kind: Mapped[str]
    question: Mapped[str] = mapped_column(ModelText)
    gold: Mapped[str] = mapped_column(ModelText)
    language: Mapped[str]
    level: Mapped[int]


class StepMetrics(Base):
    """The curves: one number of one step."""

    __tablename__ = "step_metrics"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012

    stage_id: Mapped[int] = mapped_column(
        ForeignKey("stages.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    """None where the number was not finite."""


class Graded:
    """What scoring and counting say of a completion; shares are 0…1, lengths are tokens."""

    verdict: Mapped[str]
    reason: Mapped[str] = mapped_column(ModelText)
    total: Mapped[float | None]
    accuracy: Mapped[float | None]
    format: Mapped[float | None]
    language: Mapped[float | None]
    preference: Mapped[float | None]
    parts: Mapped[dict[str, Any]]
    length_tokens: Mapped[int]
    truncated: Mapped[bool]
    language_share: Mapped[float]
    reflective_words: Mapped[int]
    gave_up: Mapped[bool]
    attempts: Mapped[int]
    repeated_attempts: Mapped[int]
    trace_steps: Mapped[int]
    slips: Mapped[int]
    false_claim: Mapped[bool]


class Rollouts(Graded, Base):
    """One sampled completion of training without its text."""

    __tablename__ = "rollouts"
    __table_args__ = (
        Index("rollouts_by_problem", "stage_id", "problem_id", "step"),
        Index("rollouts_by_length", "stage_id", "length_tokens", "step"),
        Index("rollouts_by_total", "stage_id", "total", "step"),
        Index("rollouts_by_verdict", "stage_id", "verdict", "step"),
        {"sqlite_with_rowid": False},
    )

    stage_id: Mapped[int] = mapped_column(
        ForeignKey("stages.id", ondelete="CASCADE"), primary_key=True
    )
    step: Mapped[int] = mapped_column(primary_key=True)
    group: Mapped[int] = mapped_column(primary_key=True)
    sample: Mapped[int] = mapped_column(primary_key=True)
    problem_id: Mapped[int] = mapped_column(ForeignKey("problems.id"))
    advantage: Mapped[float]


class RolloutTexts(Base):
    """The text of a rollout."""

    __tablename__ = "rollout_texts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["stage_id", "step", "group", "sample"],
            ["rollouts.stage_id", "rollouts.step", "rollouts.group", "rollouts.sample"],
            ondelete="CASCADE",
        ),
    )

    stage_id: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    group: Mapped[int] = mapped_column(primary_key=True)
    sample: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(ModelText)


class CuratedRows(Base):
    """One candidate of a data set, kept or dropped."""

    __tablename__ = "curated_rows"
    __table_args__ = (Index("curated_rows_by_reason", "stage_id", "reason"),)

    stage_id: Mapped[int] = mapped_column(
        ForeignKey("stages.id", ondelete="CASCADE"), primary_key=True
    )
    row: Mapped[int] = mapped_column(primary_key=True)
    problem_id: Mapped[int] = mapped_column(ForeignKey("problems.id"))
    reason: Mapped[str]
    source: Mapped[str]
    original: Mapped[str] = mapped_column(ModelText)
    rewritten: Mapped[str] = mapped_column(ModelText)


class Evaluations(Base):
    """One model of a run, measured under one protocol."""

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("run_id", "model"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    model: Mapped[str]
    summary: Mapped[dict[str, Any]]
    protocol: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class EvaluationSamples(Graded, Base):
    """One graded completion of an evaluation."""

    __tablename__ = "evaluation_samples"
    __table_args__ = (
        Index("evaluation_samples_by_problem", "evaluation_id", "problem_id", "sample"),
    )

    evaluation_id: Mapped[int] = mapped_column(
        ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True
    )
    row: Mapped[int] = mapped_column(primary_key=True)
    problem_id: Mapped[int] = mapped_column(ForeignKey("problems.id"))
    sample: Mapped[int]
    text: Mapped[str] = mapped_column(ModelText)


class HeldOutSamples(Graded, Base):
    """One graded answer to a held-out problem, given while a stage trained."""

    __tablename__ = "held_out_samples"
    __table_args__ = (Index("held_out_samples_by_problem", "stage_id", "problem_id", "step"),)

    stage_id: Mapped[int] = mapped_column(
        ForeignKey("stages.id", ondelete="CASCADE"), primary_key=True
    )
    step: Mapped[int] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)
    problem_id: Mapped[int] = mapped_column(ForeignKey("problems.id"))
    sample: Mapped[int]
    text: Mapped[str] = mapped_column(ModelText)


class Decisions(Base):
    """Whether a candidate became champion, and why."""

    __tablename__ = "decisions"
    __table_args__ = (UniqueConstraint("run_id", "model"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    model: Mapped[str]
    candidate_digest: Mapped[str]
    champion_digest: Mapped[str]
    promoted: Mapped[bool]
    reasons: Mapped[list[str]]
    note: Mapped[str]
    decided_at: Mapped[datetime]
