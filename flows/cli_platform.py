"""``r1 up``, ``deploy`` and ``retrain``: the platform that runs by itself.

``up`` starts its servers here; ``deploy`` registers schedules and events with a Prefect server;
``retrain`` is what they start, by hand.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli_options import AsJson, Home, print_json, use_home
from services.errors import ArtifactError, PlatformError

if TYPE_CHECKING:
    from flows.retrain import Outcome
    from flows.up import Ports
    from services.retraining.decision import Start

Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
Every = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=1, help="Look for work this often, instead of every night."
    ),
]
MonitorEvery = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=1, help="Measure the champion this often, instead of every hour."
    ),
]


def up(
    prefect_port: Port = 4200,
    mlflow_port: Port = 5000,
    dashboard_port: Port = 8501,
    retrain_every: Every = None,
    monitor_every: MonitorEvery = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what is wrong.")] = False,
    home: Home = None,
) -> None:
    """Run the platform here until Ctrl-C: Prefect, MLflow, a worker for schedules, dashboard."""
    from flows.up import Ports, faults, settle_ports

    wanted = Ports(prefect_port, mlflow_port, dashboard_port)
    folder = use_home(home)
    if check:
        _check(list(faults(folder, wanted)), folder)
        return
    with _only_platform(folder):
        for fault in faults(folder, wanted):
            raise fault
        _serve(folder, settle_ports(wanted), _schedules(retrain_every, monitor_every))


def deploy(
    pool: Annotated[
        Literal["process", "docker", "kubernetes"], typer.Option(help="Where jobs run.")
    ] = "process",
    image: Annotated[str, typer.Option(help="Of jobs in containers.")] = "r1flow",
    retrain_every: Every = None,
    monitor_every: MonitorEvery = None,
    home: Home = None,
) -> None:
    """Register schedules and events with the Prefect server of PREFECT_API_URL."""
    from flows.environment import prepare_environment

    folder = use_home(home)
    prepare_environment(folder)
    if not os.environ.get("PREFECT_API_URL"):
        raise PlatformError(
            "no Prefect server is named", "Start one with r1 up, or set PREFECT_API_URL"
        )
    from flows.deployments import DEPLOYMENTS, pool_of, register

    every = {"retrain": retrain_every, "monitor": monitor_every}
    wanted = [replace(one, every_seconds=every[one.name]) for one in DEPLOYMENTS]
    for name in register(pool_of(pool, folder, image), wanted):
        typer.echo(f"Registered: {name}")


@contextmanager
def _only_platform(home: Path) -> Iterator[None]:
    from flows.environment import PLATFORM_LOCK
    from services.artifacts import only_one

    try:
        with only_one(home / PLATFORM_LOCK):
            yield
    except ArtifactError as error:
        if "another process" not in error.what:
            raise
        raise PlatformError(
            f"r1 up is running on {home} already", "Stop it first, or use another state folder"
        ) from error


def _serve(home: Path, ports: "Ports", schedules: Sequence[str]) -> None:
    from flows.supervisor import Supervisor
    from flows.up import platform_parts, remove_platform_file, write_platform_file

    parts = platform_parts(home, ports, schedules)

    def ready() -> None:
        for part in parts:
            if part.address:
                typer.echo(f"{part.name:<10} {part.address}")
        typer.echo("Ready. Ctrl-C stops it; state stays where it is.")

    supervisor = Supervisor(
        parts,
        home / "up" / "logs",
        lambda line: typer.echo(line, err=True),
        lambda watched: write_platform_file(home, ports, watched),
    )

    def stop(_number: int, _frame: FrameType | None) -> None:
        typer.echo("Stopping.", err=True)
        supervisor.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    typer.echo(f"Starting on {home}; logs are in {home / 'up' / 'logs'}")
    try:
        supervisor.run(ready)
    finally:
        remove_platform_file(home)
    typer.echo("Stopped.")


def retrain(
    force: Annotated[
        Literal["zero", "dev2", "r1", "distill"] | None,
        typer.Option(help="Retrain from this stage whatever the policy says; zero is all of it."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Retrain if it is due: new problems, a worse champion, another base or student, its age."""
    from flows.environment import prepare_environment

    folder = use_home(home)
    prepare_environment(folder)
    with redirect_stdout(sys.stderr):
        outcome = _look_or_retrain(folder, force, dry_run)
    if as_json:
        print_json(outcome.model_dump(mode="json"))
    elif dry_run and outcome.start is not None:
        typer.echo(f"Due from {outcome.start}: {'; '.join(outcome.reasons)}")
    else:
        typer.echo(outcome.sentence)
    if outcome.state in {"failed", "given up"}:
        raise typer.Exit(2)


def _look_or_retrain(home: Path, force: "Start | None", dry_run: bool) -> "Outcome":
    """What is due is found out before a flow starts; a server without a flow costs nothing."""
    from flows import retrain as retraining

    due = retraining.examine(home, force).due
    if dry_run or (due.start is None and due.gives_up is None):
        state: Literal["due", "nothing due"] = "due" if due.start else "nothing due"
        return retraining.Outcome(state=state, reasons=list(due.reasons), start=due.start)
    from flows.running import heartbeats_if_watched

    with heartbeats_if_watched():
        return retraining.Outcome.model_validate(retraining.retrain(force))


def _check(found: "Sequence[PlatformError]", home: Path) -> None:
    """Say what is wrong; exit code 2 if anything is."""
    from flows.environment import served_addresses

    if served_addresses(home):
        typer.echo(f"r1 up is running on {home}")
        return
    for fault in found:
        typer.secho(f"{fault.what}. {fault.mend}", fg="red", err=True)
    if found:
        raise typer.Exit(2)
    typer.echo(f"Nothing is in the way of r1 up on {home}")


def _schedules(retrain_every: float | None, monitor_every: float | None) -> list[str]:
    """As options of ``r1 deploy``."""
    given = {"--retrain-every": retrain_every, "--monitor-every": monitor_every}
    return [word for name, value in given.items() if value for word in (name, str(value))]
