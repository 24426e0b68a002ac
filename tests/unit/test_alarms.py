from pathlib import Path

import pytest

from services import views
from services.store.alarms import Alarm, AlarmBook, open_alarms


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def book(url: str) -> AlarmBook:
    return open_alarms(url)


def entropy(step: int, value: float = 0.01, run_id: str = "tiny-s0") -> Alarm:
    return Alarm(
        "guard", "entropy_collapse", "warn", "entropy is low", run_id, "zero", step, value, 0.05
    )


def test_alarms_come_back_newest_first_and_by_run(book: AlarmBook, url: str) -> None:
    for alarm in (entropy(3), entropy(4), entropy(1, run_id="other")):
        book.raise_alarm(alarm)
    engine = views.open_views(url)
    assert [(row.run_id, row.step) for row in views.alarms(engine)] == [
        ("other", 1),
        ("tiny-s0", 4),
        ("tiny-s0", 3),
    ]
    assert [row.step for row in views.alarms(engine, "tiny-s0", limit=1)] == [4]


def test_a_step_that_is_done_again_raises_its_alarm_once(book: AlarmBook, url: str) -> None:
    book.raise_alarm(entropy(3, value=0.01))
    book.raise_alarm(entropy(3, value=0.02))
    (row,) = views.alarms(views.open_views(url))
    assert (row.value, row.bound, row.action) == (0.02, 0.05, "warn")
