"""Runs that outlive whoever started them: ``r1 run`` as a detached process with a log and a lock.

A launch is a folder below ``launches`` of the state folder: what was asked for, the output, and a
lock that the process holds as long as it lives. The lock says whether it still runs, so a process
number that was given to somebody else is never mistaken for ours, nor sent a signal. Stopping is
asking: the run finishes its checkpoint bookkeeping and the same recipe goes on from there.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final, NamedTuple

import services
from services.artifacts import write_atomically
from services.errors import LaunchError
from services.recipes import bundled_recipes, load_recipe, run_id_of

FOLDER: Final = "launches"
COMMAND: Final = (sys.executable, "-m", "flows.cli", "run")
"""What a launch starts; services do not import flows, they only know the command."""
TAIL_BYTES: Final = 4096
MAX_LAUNCHES: Final = 50


class Launch(NamedTuple):
    """One run that was started from here."""

    id: str
    """Name of its folder; sorts by time."""
    recipe: str
    changes: tuple[str, ...]
    """``key=value``, as after ``--set``."""
    run_id: str
    """The pipeline that it runs or goes on with."""
    who: str
    at: datetime
    pid: int
    alive: bool


def start(
    home: Path,
    recipe: str,
    changes: Sequence[str],
    *,
    who: str,
    command: Sequence[str] | None = None,
) -> Launch:
    """Start a recipe in a process of its own session, and return at once.

    Args:
        home: State folder; the run works there.
        recipe: A bundled recipe.
        changes: ``key=value`` over it.
        who: Written down with it.
        command: What to run in place of ``COMMAND``; arguments of ``r1 run`` are added.

    Raises:
        RecipeError: The recipe or a change is not valid; nothing was started.
        LaunchError: The same pipeline is at work already, or the process cannot be started.
    """
    if recipe not in bundled_recipes():
        raise LaunchError(
            f"{recipe!r} is no bundled recipe", f"Choose one of {', '.join(bundled_recipes())}"
        )
    run_id = run_id_of(load_recipe(recipe, changes))
    if any(launch.alive and launch.run_id == run_id for launch in launches(home)):
        raise LaunchError(
            f"{run_id} is at work already", "Wait until it is done, stop it, or change the seed"
        )
    now = datetime.now(UTC)
    folder = home / FOLDER / f"{now:%Y%m%dT%H%M%S.%f}"
    arguments = [*(command or COMMAND), "--recipe", recipe, "--home", str(home.resolve())]
    arguments += [word for change in changes for word in ("--set", change)]
    try:
        folder.mkdir(parents=True)
        with (folder / "lock").open("w") as lock, (folder / "log").open("wb") as log:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_listen_to_interrupts,
                pass_fds=[lock.fileno()],
                env={**os.environ, "PYTHONPATH": _search_path()},
            )
    except (OSError, ValueError) as error:  # ValueError: NUL in an argument
        raise LaunchError(
            f"cannot start {run_id}: {error}", f"Mend {home} or the change"
        ) from error
    facts = {
        "recipe": recipe,
        "changes": list(changes),
        "run_id": run_id,
        "who": who,
        "at": now.isoformat(),
        "pid": process.pid,
    }
    write_atomically(folder / "launch.json", json.dumps(facts, indent=2))
    _reap(process)
    return Launch(folder.name, recipe, tuple(changes), run_id, who, now, process.pid, True)


def _listen_to_interrupts() -> None:
    """A shell starts background jobs deaf to Ctrl-C, and what they start inherits it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def launches(home: Path, limit: int = MAX_LAUNCHES) -> list[Launch]:
    """The latest launches, newest first; folders that are no launch are passed over."""
    folders = sorted((home / FOLDER).glob("*/launch.json"), reverse=True)[:limit]
    found = []
    for path in folders:
        with suppress(OSError, ValueError, KeyError):
            facts = json.loads(path.read_text(encoding="utf-8"))
            found.append(
                Launch(
                    path.parent.name,
                    facts["recipe"],
                    tuple(facts["changes"]),
                    facts["run_id"],
                    facts["who"],
                    datetime.fromisoformat(facts["at"]),
                    int(facts["pid"]),
                    _is_held(path.parent / "lock"),
                )
            )
    return found


def stop(home: Path, launch_id: str) -> Launch:
    """Ask a launched run to stop, as Ctrl-C does; asked again, end it at once.

    Either way the same recipe goes on from its last checkpoint when it is launched again.

    Raises:
        LaunchError: There is no such launch, or it has ended.
    """
    found = next((launch for launch in launches(home) if launch.id == launch_id), None)
    if found is None:
        raise LaunchError(f"there is no launch {launch_id!r}", "See the Operations page for all")
    if not found.alive:
        raise LaunchError(f"{found.run_id} has ended already", "There is nothing to stop")
    asked = home / FOLDER / launch_id / "stop"
    # Started from a background shell it may have inherited that SIGINT is ignored.
    order = signal.SIGTERM if asked.exists() else signal.SIGINT
    asked.touch()
    with suppress(ProcessLookupError):  # it ended this very moment
        os.killpg(found.pid, order)
    return found


def log_tail(home: Path, launch_id: str) -> str:
    """The end of what a launch has printed; empty if there is nothing.

    Progress bars write over their own line: of such a line only its last state is given.
    """
    if Path(launch_id).name != launch_id or launch_id == "..":
        return ""
    try:
        with (home / FOLDER / launch_id / "log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")).strip()


def _is_held(lock: Path) -> bool:
    """Whether the process that inherited the lock still lives."""
    with _opened(lock) as file:
        if file is None:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


@contextmanager
def _opened(path: Path) -> Iterator[IO[str] | None]:
    try:
        file = path.open()
    except OSError:
        yield None
        return
    with file:
        yield file


def _reap(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the child in the background, so that it leaves no zombie while we live."""
    import threading

    threading.Thread(target=process.wait, daemon=True).start()


def _search_path() -> str:
    """Where the child finds the project: beside the package that is running."""
    root = str(Path(services.__file__).resolve().parents[1])
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
