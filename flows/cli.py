"""The command line ``r1``: reads the words, opens what is needed, prints one answer.

Anything heavy is imported inside the command that needs it, and only after its words are known to
be right: ``--help`` and a mistyped recipe answer at once. An error that the user can mend is one
red line and exit code 2; everything else is a bug and keeps its traceback. With ``--json`` the
answer alone goes to standard output, as JSON. Reading runs is in ``cli_runs``, rewards are in
``cli_rewards``, speed in ``cli_bench``, registered models in ``cli_registry``, added problems in
``cli_problems``, servers and retraining in ``cli_platform``, bundled models and the store in
``cli_models``, the look at this machine in ``doctor``.
"""

import os
import socket
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import (
    cli_bench,
    cli_models,
    cli_plan,
    cli_platform,
    cli_problems,
    cli_registry,
    cli_rewards,
    cli_runs,
    doctor,
)
from flows.cli_options import AsJson, Changes, Home, RecipeName, print_json, print_table
from services.errors import R1Error

if TYPE_CHECKING:
    from flows.report import PipelineReport

DASHBOARD = Path(__file__).parents[1] / "dashboard" / "app.py"
STARTED = time.perf_counter()

app = typer.Typer(
    help="The whole DeepSeek-R1 recipe as tracked, resumable jobs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="r1")
    except R1Error as error:
        typer.secho(" ".join(f"Error: {error}".split()), fg="red", err=True)
        raise SystemExit(2) from None


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("r1flow"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options of ``r1`` itself; the eager one has answered before a command is asked for."""


@app.command()
def run(
    recipe: RecipeName = "tiny",
    changes: Changes = None,
    until: Annotated[str | None, typer.Option(help="Last stage to run, such as dev1.")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="First stage to run again although its result is there."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed than the recipe's.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe, or go on where it stopped. What is finished is not run again."""
    from flows.environment import home_folder, prepare_environment
    from services.recipes import load_recipe

    chosen = load_recipe(recipe, [*(changes or ()), *(() if seed is None else (f"seed={seed}",))])
    folder = home_folder(home)
    prepare_environment(folder)
    try:
        with redirect_stdout(sys.stderr):
            from flows.running import run_pipeline

            report = run_pipeline(chosen, home=folder, until=until, start=start, started=STARTED)
    except KeyboardInterrupt:
        typer.echo("Stopped. The same command goes on from here.", err=True)
        raise
    if as_json:
        from flows.report import as_json as report_as_json

        print_json(report_as_json(report))
    else:
        _print_report(report, folder)


def _print_report(report: "PipelineReport", home: Path) -> None:
    from flows.report import ORCHESTRATION_BAR, stage_table

    if report.table:
        print_table(stage_table(report.table))
    if report.decision:
        typer.echo(f"Gate: {report.decision}")
    if report.export:
        typer.echo(f"Exported: {report.export}")
    if report.nothing_to_do:
        typer.echo(f"Nothing to do: {report.run_id} is finished. Run it again with --from STAGE.")
    else:
        work = ", ".join(f"{name} {value:.0f} s" for name, value in report.working_seconds.items())
        typer.echo(f"{report.run_id}: {report.seconds:.0f} s ({work})")
        share = f"{report.orchestration_share:.1%} (at most {ORCHESTRATION_BAR:.0%} is meant)"
        typer.echo(f"Orchestration and tracking: {share}")
    default = Path(".r1").absolute()
    typer.echo(f"Curves: {'' if home == default else f'R1_HOME={home} '}make dashboard")


app.command()(cli_plan.plan)
app.command()(cli_runs.runs)
app.command()(cli_runs.show)
for _command in (
    cli_registry.models,
    cli_registry.promote,
    cli_registry.rollback,
    cli_registry.pin,
    cli_registry.unpin,
    cli_registry.policy,
    cli_registry.watch,
):
    app.command()(_command)
app.add_typer(cli_registry.approvals, name="approvals")
app.add_typer(cli_registry.webhooks, name="webhooks")
app.add_typer(cli_problems.problems, name="problems")
app.command()(cli_rewards.verify)
app.command()(cli_rewards.reward)
app.command()(cli_platform.up)
app.command()(cli_platform.deploy)
app.command()(cli_platform.retrain)
app.add_typer(cli_models.base, name="base")
app.add_typer(cli_models.store, name="store")
app.add_typer(cli_bench.bench, name="bench")
app.command("doctor")(doctor.examine)


@app.command(hidden=True)
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    home: Home = None,
) -> None:
    """Open the dashboard; ``make dashboard`` calls this."""
    from flows.environment import home_folder

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise R1Error(
                f"port {port} cannot be opened: {error.strerror}",
                f"Choose another one: make dashboard PORT={port % 65535 + 1}",
            ) from error
    os.environ["R1_HOME"] = str(home_folder(home))
    streamlit = [sys.executable, "-m", "streamlit", "run", str(DASHBOARD)]
    os.execv(sys.executable, [*streamlit, "--server.port", str(port)])


if __name__ == "__main__":
    main()
