"""Keeping processes alive: start in order, ask for health, restart with back-off, stop all.

Each part runs in a session of its own, so that everything it starts ends with it: what a dead part
leaves is ended before the part starts again, and nothing outlives the supervisor. If the supervisor
itself is killed, Linux asks the parts to end. What the parts are is in ``up``.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TICK_SECONDS: Final = 0.25
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A part that lived this long has its earlier deaths forgiven."""
STARTUP_SECONDS: Final = 600.0
"""A part that does not answer this long after its start is restarted."""
SILENCE_SECONDS: Final = 120.0
"""A part that answered and then does not for this long is restarted."""
ASK_EVERY_SECONDS: Final = 2.0
GRACE_SECONDS: Final = 15.0
"""From the polite request to end to the other one."""
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One process to keep alive."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Over that of the supervisor."""
    health: str = ""
    """URL that answers 2xx when the part works; without one, running is working."""
    address: str = ""
    """What a person opens; empty if there is nothing to see."""
    needs: tuple[str, ...] = ()
    """Parts that have to work before this one starts."""
    once: bool = False
    """Whether it does one thing and ends; then a good end is what its dependents wait for."""


@dataclass(slots=True)
class Watched:
    """What the supervisor knows of a part."""

    part: Part
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    next_start: float = 0.0
    deaths: int = 0
    """In a row, without a steady time between them."""
    starts: int = 0
    works: bool = False
    last_answer: float = 0.0
    next_question: float = 0.0

    @property
    def pid(self) -> int | None:
        """Of the running process, and of the group of everything it started."""
        return None if self.process is None else self.process.pid


def pause_after(deaths: int) -> float:
    """Seconds to wait before a part is started again: 1, 2, 4, … 30."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** max(0, deaths - 1))


def answers(url: str, timeout_seconds: float = 2.0) -> bool:
    """Whether a URL on this machine answers 2xx; proxies are not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_seconds) as reply:
            return 200 <= int(reply.status) < 300
    except (urllib.error.URLError, OSError, ValueError):
        return False


class Supervisor:
    """Runs parts until it is asked to stop.

    Args:
        parts: In the order they start; they stop in the other one.
        logs: Folder for what each part prints.
        say: Told, in a line each, what happens.
        changed: Called when a part starts, works or ends, with all that is watched.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        logs: Path,
        say: Callable[[str], None],
        changed: Callable[[Sequence[Watched]], None] = lambda _: None,
    ) -> None:
        self.watched = {part.name: Watched(part) for part in parts}
        self._logs = logs
        self._say = say
        self._changed = changed
        self._stop = threading.Event()

    def stop(self) -> None:
        """End ``run`` soon; may be called from a signal handler or another thread."""
        self._stop.set()

    def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Keep the parts alive until ``stop``; ``ready`` is called once, when all of them work."""
        self._logs.mkdir(parents=True, exist_ok=True)
        told = False
        try:
            while not self._stop.is_set():
                for one in self.watched.values():
                    self._tend(one)
                if not told and all(one.works for one in self.watched.values()):
                    told = True
                    ready()
                self._stop.wait(TICK_SECONDS)
        finally:
            self._end_all()

    def _tend(self, one: Watched) -> None:
        now = time.monotonic()
        if one.process is None:
            if self._may_start(one, now):
                self._start(one, now)
            return
        code = one.process.poll()
        if code is not None:
            self._ended(one, code, now)
        elif now >= one.next_question:
            self._ask(one, now)

    def _may_start(self, one: Watched, now: float) -> bool:
        done = one.part.once and one.works
        return (
            not done
            and now >= one.next_start
            and all(self.watched[need].works for need in one.part.needs)
        )

    def _start(self, one: Watched, now: float) -> None:
        part = one.part
        with (self._logs / f"{part.name}.log").open("ab") as log:
            one.process = subprocess.Popen(
                part.command,
                env={**os.environ, **part.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        one.starts += 1
        one.started_at = one.last_answer = now
        one.next_question = now
        one.works = False
        self._changed(list(self.watched.values()))

    def _ended(self, one: Watched, code: int, now: float) -> None:
        assert one.process is not None
        end_group(one.process.pid, signal.SIGKILL)
        one.process = None
        if one.part.once and code == 0:
            one.works = True
            self._changed(list(self.watched.values()))
            return
        one.works = False
        one.deaths = 1 if now - one.started_at >= STEADY_SECONDS else one.deaths + 1
        pause = pause_after(one.deaths)
        one.next_start = now + pause
        log = self._logs / f"{one.part.name}.log"
        self._say(f"{one.part.name} ended ({_how(code)}), again in {pause:.0f} s; see {log}")
        self._changed(list(self.watched.values()))

    def _ask(self, one: Watched, now: float) -> None:
        one.next_question = now + (ASK_EVERY_SECONDS if one.works else 2 * TICK_SECONDS)
        if one.part.once:
            return
        if not one.part.health or answers(one.part.health):
            news = not one.works
            one.works, one.last_answer = True, now
            if news:
                self._changed(list(self.watched.values()))
            return
        patience = SILENCE_SECONDS if one.works else STARTUP_SECONDS
        if now - one.last_answer > patience and one.process is not None:
            self._say(f"{one.part.name} has not answered for {patience:.0f} s and is ended")
            one.last_answer = now
            end_group(one.process.pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """Ask politely, last part first; what is left after the grace is killed."""
        running = [one for one in reversed(self.watched.values()) if one.process is not None]
        deadline = time.monotonic() + GRACE_SECONDS
        for one in running:
            assert one.process is not None
            # To the leader alone: it knows in which order its own should go.
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGTERM)
        while time.monotonic() < deadline and any(
            one.process is not None and one.process.poll() is None for one in running
        ):
            time.sleep(0.1)
        for one in running:
            assert one.process is not None
            end_group(one.process.pid, signal.SIGKILL)
            one.process.wait()
            one.process, one.works = None, False
        self._changed(list(self.watched.values()))


def end_group(group: int, how: signal.Signals) -> None:
    """Signal everything in a process group; nothing if it is gone."""
    try:
        os.killpg(group, how)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of zombies
        return


def _end_with_parent() -> Callable[[], None] | None:
    """Have the system end a child whose supervisor is killed; only Linux can."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
