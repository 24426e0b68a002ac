"""The child process that verifiers run in: one JSON line in, one out, until the input ends.

    {"id": …, "kind": …, "question": …, "gold": …, "language": …, "answer": …, "seconds": 5.0}
    ["correct", "means the same as the reference"]        or  {"error": [what, mend]}

The limit of an item is processor time, so that a verdict does not depend on what else the machine
is doing; by the clock it may take ``PATIENCE`` times as long. A timer interrupts Python code and
costs the row alone; a watchdog that needs no interpreter ends the process a second later, if
library code in C would not stop. Memory is limited for the whole process. What libraries print goes
nowhere.
"""

import faulthandler
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final

from services.errors import R1Error
from services.types import Judgement, Problem, Verdict
from services.verifiers import verifier_for

MEMORY_BYTES: Final = 4 * 1024**3
FIRST_OF_KIND_SECONDS: Final = 30.0
"""Added for the first item of a kind, because it imports the verifier's library."""
PATIENCE: Final = 4.0
"""Seconds by the clock for each second of processor time."""
_GRACE_SECONDS = 1.0


class _OutOfTime(BaseException):
    """Not an Exception, so that no library swallows it."""


def main() -> None:
    """Serve items from standard input to standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _interrupt)
    signal.signal(signal.SIGPROF, _interrupt)
    seen: set[str] = set()
    with os.fdopen(os.dup(1), "w", encoding="ascii") as out, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        for line in sys.stdin:
            item = json.loads(line)
            seconds = item.pop("seconds")
            if item["kind"] not in seen:
                seconds += FIRST_OF_KIND_SECONDS
                seen.add(item["kind"])
            answer = item.pop("answer")
            try:
                reply: object = list(_judge(Problem(**item), answer, seconds, nowhere))
            except R1Error as error:
                reply = {"error": [error.what, error.mend]}
            out.write(json.dumps(reply) + "\n")
            out.flush()


def _judge(problem: Problem, answer: str, seconds: float, nowhere: IO[str]) -> Judgement:
    try:
        with _limit(seconds, nowhere):
            return verifier_for(problem.kind)(problem, answer)
    except _OutOfTime:
        return Judgement(Verdict.UNSCORABLE, f"the verifier took more than {seconds:g} seconds")
    except R1Error:
        raise
    except Exception as error:
        # Whatever a verifier's library does with a text it did not foresee costs this row alone.
        return Judgement(Verdict.UNSCORABLE, f"the verifier failed: {error!r}"[:300])


@contextmanager
def _limit(seconds: float, nowhere: IO[str]) -> Iterator[None]:
    by_clock = PATIENCE * seconds
    faulthandler.dump_traceback_later(by_clock + _GRACE_SECONDS, exit=True, file=nowhere)
    signal.setitimer(signal.ITIMER_REAL, by_clock)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _interrupt(_signal: int, _frame: Any) -> None:
    raise _OutOfTime


if __name__ == "__main__":
    main()
