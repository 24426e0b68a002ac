"""``r1 doctor``: whether this machine has what a run needs, and how to get what it lacks.

A failed check is one without which ``r1 run`` or ``make test`` cannot work. A note is something
that only a part needs. Nothing is changed, and nothing outside this machine is asked.
"""

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, Literal, NamedTuple

import typer

from flows.cli_options import AsJson, Home, print_json, use_home
from services.errors import R1Error

ROOT: Final = Path(__file__).parents[1]
LEAST_PYTHON: Final = (3, 11)
LEAST_FREE_GIB: Final = 2.0
"""State of some runs of the default recipe."""
DASHBOARD_PORT: Final = 8501
_COLOURS: Final = {"ok": "green", "note": "yellow", "fail": "red"}
_PIN: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;#]+)", re.MULTILINE)


class Finding(NamedTuple):
    """What one check found."""

    name: str
    state: Literal["ok", "note", "fail"]
    said: str
    mend: str = ""


def examine(home: Home = None, as_json: AsJson = False) -> None:
    """Check this machine; exit code 2 if a run cannot work on it."""
    findings = list(check_all(use_home(home)))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            state = typer.style(f"{finding.state:<5}", fg=_COLOURS[finding.state])
            mend = f". {finding.mend}" if finding.mend else ""
            typer.echo(f"{state} {finding.name:<10} {finding.said}{mend}")
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(2)


def check_all(home: Path) -> Iterator[Finding]:
    """All checks, the quick ones first."""
    yield check_python()
    yield check_packages(ROOT / "constraints.txt")
    yield check_folder(home)
    yield check_port(DASHBOARD_PORT)
    yield check_sandbox()
    yield check_browser()
    yield check_device()


def check_python() -> Finding:
    """The interpreter is one that the project supports."""
    said = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < LEAST_PYTHON:
        return Finding(
            "Python", "fail", said, "Install 3.11 or later: make setup PYTHON=python3.11"
        )
    return Finding("Python", "ok", said)


def check_packages(constraints: Path) -> Finding:
    """What is installed is what the project was tested with."""
    try:
        lines = constraints.read_text(encoding="utf-8")
    except OSError:
        return Finding("packages", "note", f"there is no {constraints}", "Install from a checkout")
    missing, other = [], []
    required = {_canonical(re.split(r"[\s\[<>=!~;]", line)[0]) for line in _requirements()}
    for pin in _PIN.finditer(lines):
        name, wanted = pin["name"], pin["version"]
        try:
            found = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            missing += [name] if _canonical(name) in required else []
            continue
        if found != wanted:
            other.append(f"{name} {found} (not {wanted})")
    if missing:
        return Finding("packages", "fail", f"missing: {', '.join(missing)}", "Run: make setup")
    if other:
        said = f"other versions than those tested: {', '.join(other[:3])}"
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        return Finding("packages", "note", said + more, "Run: make setup")
    return Finding("packages", "ok", "as in constraints.txt")


def check_folder(home: Path) -> Finding:
    """The state folder can be written, and has room."""
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        mend = "Choose another one with R1_HOME, or mend its permissions"
        return Finding("state", "fail", f"cannot write to {place}: {error.strerror}", mend)
    free = shutil.disk_usage(place).free / 2**30
    if free < LEAST_FREE_GIB:
        return Finding("state", "fail", f"{free:.1f} GiB free at {home}", "Free some space")
    return Finding("state", "ok", f"{home}, {free:.0f} GiB free")


def check_port(port: int) -> Finding:
    """The dashboard's port is free."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            mend = f"If it is not the dashboard: make dashboard PORT={port + 1}"
            return Finding("port", "note", f"something answers on {port}", mend)
    return Finding("port", "ok", f"{port} is free for the dashboard")


def check_sandbox() -> Finding:
    """Programs that a model wrote can be run apart; only code problems need it."""
    from services.sandbox import ensure_available

    try:
        ensure_available()
    except R1Error as error:
        return Finding("sandbox", "note", f"{error.what} (code problems need it)", error.mend)
    return Finding("sandbox", "ok", "bubblewrap works")


def check_browser() -> Finding:
    """Pictures of the dashboard can be taken."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        said = f"no {' and no '.join(missing)} (make screenshots needs it)"
        mend = "Install it with: apt-get install chromium chromium-driver"
        return Finding("browser", "note", said, mend)
    return Finding("browser", "ok", "chromium and chromedriver")


def check_device() -> Finding:
    """What computation will run on."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("device", "fail", f"torch cannot be loaded: {error}", "Run: make setup")
    said = f"torch {torch.__version__}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        return Finding("device", "ok", f"{said}, {torch.cuda.get_device_name()}")
    return Finding("device", "ok", f"{said}, no GPU: the tiny recipe needs none")


def _requirements() -> list[str]:
    """What the project itself asks for, extras aside."""
    try:
        wanted = metadata.requires("r1flow") or []
    except metadata.PackageNotFoundError:
        wanted = []
    return [line for line in wanted if "extra ==" not in line]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
