import os
import signal
import sys
import time
from pathlib import Path

import pytest

from services import detached
from services.detached import Launch, launches, log_tail, start, stop
from services.errors import LaunchError, RecipeError

WAITS = (sys.executable, "-u", "-c", "import sys, time; print(sys.argv[1:]); time.sleep(600)")
ENDS = (sys.executable, "-c", "print('5 %\\r100 %'); print('done')")
PATIENCE_SECONDS = 60


def ended(home: Path) -> Launch:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while launches(home)[0].alive and time.monotonic() < deadline:
        time.sleep(0.02)
    return launches(home)[0]


def begun(home: Path, launch: Launch) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not log_tail(home, launch.id) and time.monotonic() < deadline:
        time.sleep(0.02)
    return log_tail(home, launch.id)


def test_a_launch_is_written_down_and_ends_by_itself(tmp_path: Path) -> None:
    launch = start(tmp_path, "tiny", ["seed=3"], who="me", command=ENDS)
    assert (launch.recipe, launch.changes, launch.who) == ("tiny", ("seed=3",), "me")
    assert launch.run_id.startswith("tiny-s3-")
    assert ended(tmp_path) == launch._replace(alive=False)
    assert log_tail(tmp_path, launch.id) == "100 %\ndone"


def test_it_is_handed_the_recipe_and_stops_when_asked(tmp_path: Path) -> None:
    launch = start(tmp_path, "tiny", ["zero.steps=2"], who="me", command=WAITS)
    home = str(tmp_path.resolve())
    words = ["--recipe", "tiny", "--home", home, "--set", "zero.steps=2"]
    assert begun(tmp_path, launch) == str(words)
    with pytest.raises(LaunchError, match="at work already"):
        start(tmp_path, "tiny", ["zero.steps=2"], who="you", command=WAITS)
    stop(tmp_path, launch.id)
    assert not ended(tmp_path).alive
    assert "KeyboardInterrupt" in log_tail(tmp_path, launch.id)
    with pytest.raises(LaunchError, match="ended already"):
        stop(tmp_path, launch.id)


def test_it_stops_when_asked_though_the_dashboard_is_a_background_job(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell leaves it for "command &"
    try:
        launch = start(tmp_path, "tiny", [], who="me", command=WAITS)
    finally:
        signal.signal(signal.SIGINT, before)
    begun(tmp_path, launch)
    stop(tmp_path, launch.id)
    assert not ended(tmp_path).alive


def test_asked_again_it_is_ended_at_once(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    command = (sys.executable, "-u", "-c", f"{deaf}; print('deaf'); time.sleep(600)")
    launch = start(tmp_path, "tiny", [], who="me", command=command)
    begun(tmp_path, launch)
    stop(tmp_path, launch.id)
    assert launches(tmp_path)[0].alive
    stop(tmp_path, launch.id)
    assert not ended(tmp_path).alive


def test_a_number_that_was_given_to_another_process_is_left_alone(tmp_path: Path) -> None:
    launch = start(tmp_path, "tiny", [], who="me", command=ENDS)
    ended(tmp_path)
    path = tmp_path / "launches" / launch.id / "launch.json"
    path.write_text(path.read_text().replace(f'"pid": {launch.pid}', f'"pid": {os.getpid()}'))
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with pytest.raises(LaunchError, match="ended already"):
            stop(tmp_path, launch.id)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == []


def test_a_mistake_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"zero\.steps"):
        start(tmp_path, "tiny", ["zero.stepz=1"], who="me", command=ENDS)
    with pytest.raises(LaunchError, match="no bundled recipe"):
        start(tmp_path, "../tiny", [], who="me", command=ENDS)
    with pytest.raises(LaunchError, match="null byte"):
        start(tmp_path, "tiny", ['description="a\0b"'], who="me\0", command=ENDS)
    assert launches(tmp_path) == []


def test_only_launches_have_logs(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("secret")
    (tmp_path / "launches").mkdir()
    assert log_tail(tmp_path, "..") == ""
    assert log_tail(tmp_path, "../..") == ""
    assert log_tail(tmp_path, "nothing") == ""


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="cannot start"):
        start(tmp_path, "tiny", [], who="me", command=(str(tmp_path / "no command"),))
    assert launches(tmp_path) == []
    assert detached.COMMAND[-1] == "run"
