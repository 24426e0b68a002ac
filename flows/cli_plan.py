"""``r1 plan``: what a recipe would take, before it runs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import AsJson, Changes, Home, print_json, print_table

if TYPE_CHECKING:
    from services.planner import Plan, StageForecast


COLUMNS = ("stage", "steps", "completions", "tokens ≤", "GiB a device", "cache GiB", "disk GiB")

Recipe = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A bundled recipe, or the path of a .toml file.")
]


def plan(
    recipe: Recipe = "tiny", changes: Changes = None, home: Home = None, as_json: AsJson = False
) -> None:
    """Show the commands, devices, memory, disk, completions and tokens of every stage."""
    from flows.environment import home_folder
    from services.planner import plan as forecast
    from services.recipes import load_recipe

    made = forecast(load_recipe(recipe, changes or ()), home_folder(home), recipe)
    if as_json:
        print_json(asdict(made))
    else:
        _print(made)


def _print(made: "Plan") -> None:
    from rich.table import Table

    typer.echo(
        f"{made.recipe}: base {_short(made.base_parameters)}, student "
        f"{_short(made.student_parameters)} parameters; {made.devices} devices on {made.nodes} "
        f"host{'s' * (made.nodes > 1)}, {made.launcher}"
    )
    table = Table()
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in made.stages:
        table.add_row(*_row(stage))
    table.add_row(
        "all", "", _short(made.completions), _short(made.tokens), "", "", _size(made.disk_gib)
    )
    print_table(table)
    for obstacle in made.obstacles:
        typer.echo(f"Obstacle: {obstacle}")
    for stage in made.stages:
        first, *others = stage.commands
        typer.echo(f"{stage.stage}: {first}")
        if others:
            typer.echo(f"  and {len(others)} more hosts, with --machine_rank 1 to {len(others)}")


def _row(stage: "StageForecast") -> tuple[str, ...]:
    counts = (stage.steps, stage.completions, stage.tokens)
    sizes = (stage.device_gib, stage.cache_gib, stage.disk_gib)
    return (stage.stage, *(_short(n) if n else "" for n in counts), *map(_size, sizes))


def _size(gib: float | None) -> str:
    return "" if gib is None else f"{gib:,.1f}" if gib >= 0.1 else f"{gib:.3f}"


def _short(count: int) -> str:
    """A count with three digits that count."""
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**4, "")):
        if count >= unit and name:
            return f"{count / unit:.3g}{name}"
    return f"{count:,}"
