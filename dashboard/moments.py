"""Points in time as pages say them: in UTC, to the minute."""

from datetime import UTC, datetime


def utc(moment: datetime | None) -> str:
    """``2026-01-31 23:59``; empty for what has not happened."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment else ""
