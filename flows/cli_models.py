"""``r1 base`` and ``r1 store``: the models that come with the project, and the store of runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_options import (
    AsJson,
    Home,
    RecipeName,
    Who,
    print_json,
    print_table,
    use_home,
    user_or,
)
from services.errors import ArtifactError

if TYPE_CHECKING:
    from services.retention import RetentionPlan

BASE = "tiny-base"
"""The bundled model whose measurement has bars to meet."""

Bundled = Annotated[
    str, typer.Argument(metavar="[MODEL]", help="tiny-base, tiny-student or tiny-moe-base.")
]

base = typer.Typer(help="The models that come with the project.", no_args_is_help=True)
store = typer.Typer(help="The store of runs.", no_args_is_help=True)


@store.command("path")
def store_path(home: Home = None) -> None:
    """Print the address of the store, without its password."""
    from sqlalchemy.engine import make_url

    from services.store.opening import store_url

    use_home(home)
    typer.echo(make_url(store_url()).render_as_string(hide_password=True))


@store.command("upgrade")
def store_upgrade(home: Home = None) -> None:
    """Bring the store to the schema of this version; a store that is not there is created."""
    from services.store import store_url, upgrade_store

    use_home(home)
    upgrade_store(store_url())
    typer.echo("The store has the present schema.")


@store.command("retention")
def store_retention(
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove it; without this it is only shown.")
    ] = False,
    why: Annotated[str, typer.Option(help="For what reason; needed to remove, and kept.")] = "",
    who: Who = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show which artifacts nothing needs any more, and remove them with --apply."""
    from flows.cli_registry import open_line
    from services import retention
    from services.policies import load_policy
    from services.store import store_url
    from services.store.opening import open_engine_to_write
    from services.versions import LINE

    folder = use_home(home)
    registry = open_line(home)
    engine = open_engine_to_write(store_url())
    planned = retention.plan(folder, registry, engine, load_policy(LINE, folder).retention)
    if apply:
        retention.remove(planned, registry, engine, who=user_or(who), why=why)
    if as_json:
        print_json(
            {
                "applied": apply,
                "freed_bytes": planned.freed_bytes,
                "removable": [str(row.path) for row in planned.removable],
                "kept": {str(row.artifact.path): row.why for row in planned.kept},
            }
        )
    else:
        _print_retention(planned, applied=apply)


def _print_retention(planned: "RetentionPlan", *, applied: bool) -> None:
    from rich.table import Table

    table = Table("artifact", "MB", "stays because it is")
    for row in planned.removable:
        table.add_row(row.path.name, f"{row.size_bytes / 1e6:.1f}", "" if applied else "– may go")
    for kept in planned.kept:
        table.add_row(kept.artifact.path.name, f"{kept.artifact.size_bytes / 1e6:.1f}", kept.why)
    print_table(table)
    freed = f"{len(planned.removable)} artifacts, {planned.freed_bytes / 1e6:.1f} MB"
    if applied:
        typer.echo(f"Removed {freed}.")
    else:
        typer.echo(f"{freed} may go. To remove them: r1 store retention --apply --why …")


@base.command("build")
def base_build(
    model: Bundled = BASE,
    recipe: RecipeName = "tiny",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and documents.")] = 0,
) -> None:
    """Pretrain a bundled model anew, measure it, and put it in its place; takes half an hour."""
    from services.recipes import load_recipe

    chosen = load_recipe(recipe)
    _require_bundled(model)
    from services.pretraining.build import build
    from services.training.machine import prepare_machine

    prepare_machine(chosen.engine)
    summary = build(
        model,
        chosen,
        lambda now: typer.echo(
            f"step {now.step}: loss {now.loss:.3f}, {now.tokens:,} tokens", err=True
        ),
        seed=seed,
    )
    _print_measured(model, summary, as_json=False)


@base.command("card")
def base_card(model: Bundled = BASE, recipe: RecipeName = "tiny") -> None:
    """Measure a bundled model as it is and write its model card anew."""
    from services.recipes import load_recipe

    chosen = load_recipe(recipe)
    _require_bundled(model)
    from services.pretraining.build import renew_card
    from services.training.machine import prepare_machine

    prepare_machine(chosen.engine)
    _print_measured(model, renew_card(model, chosen), as_json=False)


@base.command("check")
def base_check(model: Bundled = BASE, recipe: RecipeName = "tiny", as_json: AsJson = False) -> None:
    """Measure a bundled model by a recipe's protocol; exit code 1 if it misses a bar."""
    from services.recipes import load_recipe

    chosen = load_recipe(recipe)
    _require_bundled(model)
    from services.base_models import resolve_model
    from services.pretraining.build import measure_bundled
    from services.training.machine import prepare_machine

    folder, _ = resolve_model(f"bundled:{model}", Path())
    prepare_machine(chosen.engine)
    _print_measured(model, measure_bundled(folder, chosen), as_json=as_json)


def _require_bundled(model: str) -> None:
    from services.pretraining.build import BUILDS

    if model not in BUILDS:
        raise ArtifactError(
            f"there is no bundled model {model!r}", f"Choose one of {', '.join(BUILDS)}"
        )


def _print_measured(model: str, summary: dict[str, float], *, as_json: bool) -> None:
    from services.pretraining.build import failed_bars

    missed = failed_bars(summary) if model == BASE else []
    if as_json:
        print_json({"model": model, "measured": summary, "missed": missed})
    else:
        for name, value in sorted(summary.items()):
            typer.echo(f"{name:<28} {value:>10.4f}")
        for bar in missed:
            typer.secho(f"Missed: {bar}", fg="red", err=True)
    if missed:
        raise typer.Exit(1)
