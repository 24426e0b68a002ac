"""``r1 runs`` and ``r1 show``: what the store knows, read through ``services.views``."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Home, print_json, print_table, use_home

if TYPE_CHECKING:
    from rich.table import Table

    from services.views import Decision, Evaluation, Run, RunOverview


def runs(
    home: Home = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs, newest first."""
    from services import views

    use_home(home)
    found: list[Run] = []
    with suppress(views.MissingStoreError):  # no store yet is no run yet
        found = views.list_runs(views.open_views(views.store_url()), limit)
    if as_json:
        print_json(found)
    elif found:
        print_table(_runs_table(found))
    else:
        typer.echo("Nothing has run yet. Start a run with: r1 run")


def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run, as r1 runs names it.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: its stages, its evaluation, its promotion."""
    from services import views

    use_home(home)
    engine = views.open_views(views.store_url())
    overview = views.run_overview(engine, run_id)
    evaluations = views.evaluation_table(engine, run_id)
    decisions = views.decisions(engine, run_id)
    if as_json:
        answer = {"evaluations": evaluations, "decisions": decisions}
        print_json(overview._asdict() | answer)
    else:
        _print_run(overview, evaluations, decisions)


def _print_run(
    overview: "RunOverview", evaluations: "list[Evaluation]", decisions: "list[Decision]"
) -> None:
    run = overview.run
    typer.echo(f"{run.id}: {run.state}, recipe {run.recipe_name}, seed {run.seed}")
    if run.summary:
        typer.echo(run.summary)
    print_table(_stages_table(overview))
    if evaluations:
        from flows.report import stage_table

        print_table(
            stage_table(
                {
                    row.model: {name: x for name, x in row.summary.items() if x is not None}
                    for row in evaluations
                }
            )
        )
    for decision in decisions:
        typer.echo(f"Gate: {decision.note}: {'; '.join(decision.reasons)}")


def _runs_table(found: "list[Run]") -> "Table":
    from rich.table import Column, Table

    table = Table(Column("run", no_wrap=True), "state", "stages", "started", "last wrote")
    for run in found:
        table.add_row(
            run.id,
            run.state,
            f"{run.stages_done}/{run.stages}",
            f"{run.started_at.astimezone():%Y-%m-%d %H:%M}",
            f"{run.seen_at.astimezone():%Y-%m-%d %H:%M}",
        )
    return table


def _stages_table(overview: "RunOverview") -> "Table":
    from rich.table import Table

    table = Table("stage", "state", "steps", "seconds", "result")
    for stage in overview.stages:
        table.add_row(
            stage.name,
            f"from {stage.source_run}" if stage.source_run else stage.state,
            f"{stage.last_step}/{stage.total_steps}" if stage.total_steps > 1 else "",
            f"{stage.seconds:.0f}",
            stage.output_digest[:12],
        )
    return table
