"""Processes of ours that must not outlive us: how they start, end, and what they said last.

A command runs under a guard, a small process that leads its group and holds one end of a pipe. When
we are gone, however that came about, the pipe closes and the guard ends the group. Asking the
system to signal the command itself is not enough: vLLM's engine outlives its own front end, and a
signal that comes while it starts is lost.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

PATIENCE_SECONDS: Final = 20.0
"""Between being asked to end and being made to."""


def start_guarded(
    words: Sequence[str], output: IO[bytes], environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start a command that ends with us; its output goes to a file, its input is empty."""
    return subprocess.Popen(
        # -I: this file lies beside modules that are named like those of the standard library
        [sys.executable, "-I", str(Path(__file__)), *words],
        env=environment,
        stdin=subprocess.PIPE,  # what tells the guard that we are there
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def end_group(process: "subprocess.Popen[bytes]", patience: float = PATIENCE_SECONDS) -> None:
    """End a guard and everything in its group."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    if process.stdin:
        process.stdin.close()


def free_port() -> int:
    """A loopback port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_lines(log: Path, count: int = 3) -> str:
    """The last lines of a log that name an error, else its last ones, as one line."""
    lines = [" ".join(line.split()) for line in log.read_text(errors="replace").splitlines()]
    telling = [line for line in lines if line and not line.startswith(("^", "~", "File "))]
    raised = [line for line in telling if re.search(r"\b\w*(Error|Exception): ", line)]
    errors = raised or [line for line in telling if "Error" in line]
    return " / ".join((errors or telling)[-count:])[-600:] or "it said nothing"


def _guard(words: Sequence[str]) -> int:
    """Run a command; its exit code, or that of its end when nobody holds the pipe any more."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # meant for the command, which ends by itself
    command = subprocess.Popen(words, stdin=subprocess.DEVNULL)

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written: this returns when the pipe closes
        os.killpg(0, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            command.wait(PATIENCE_SECONDS)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    code = command.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
