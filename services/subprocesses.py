"""Processes of ours that others must not outlive: how they start, end, and what they said last."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final

PATIENCE_SECONDS: Final = 20.0
"""Between being asked to end and being made to."""


def free_port() -> int:
    """A loopback port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def dying_with_us() -> list[str]:
    """Words before a command that let the system end it when this process is killed."""
    found = shutil.which("setpriv")
    return [found, "--pdeathsig", "TERM", "--"] if found else []


def end_group(process: "subprocess.Popen[bytes]", patience: float = PATIENCE_SECONDS) -> None:
    """End a process that leads a group, and everything in the group."""
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


def last_lines(log: Path, count: int = 3) -> str:
    """The last lines of a log that name an error, else its last ones, as one line."""
    lines = [" ".join(line.split()) for line in log.read_text(errors="replace").splitlines()]
    telling = [line for line in lines if line and not line.startswith(("^", "~", "File "))]
    errors = [line for line in telling if "Error" in line]
    return " / ".join((errors or telling)[-count:])[-600:] or "it said nothing"
