"""``r1 models``, ``promote``, ``rollback``, ``base`` and ``store``: what has been made, and where.

A promotion by hand is written down with who and why, as the gate's own are.
"""

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import AsJson, Home, RecipeName, print_json, print_table, use_home
from services.errors import ArtifactError, RegistryError

if TYPE_CHECKING:
    from services.registry import Registry, Version
    from services.store.ledger import Promotion

BASE = "tiny-base"
"""The bundled model whose measurement has bars to meet."""

Model = Annotated[
    str,
    typer.Option(metavar="NAME", help="Registered model: r1, or r1-distill-STUDENT."),
]
Why = Annotated[str, typer.Option(help="For what reason; it is kept.")]
Who = Annotated[str | None, typer.Option(help="Who decides; by default the user logged in.")]
Bundled = Annotated[
    str, typer.Argument(metavar="[MODEL]", help="tiny-base, tiny-student or tiny-moe-base.")
]

base = typer.Typer(help="The models that come with the project.", no_args_is_help=True)
store = typer.Typer(help="The store of runs.", no_args_is_help=True)


def models(model: Model = "r1", home: Home = None, as_json: AsJson = False) -> None:
    """List the versions of a registered model, newest first."""
    registry = _registry(home)
    head = registry.head(model)
    rows = [_row(version, head) for version in registry.versions(model)]
    if as_json:
        print_json(rows)
        return
    if not rows:
        raise RegistryError(
            f"there is no registered model {model!r}",
            "The gate of a pipeline registers them: r1 run",
        )
    from rich.table import Table

    table = Table("version", "stage", "alias", "pass@1", "digest", "pipeline", title=model)
    for row in rows:
        measured = row["evaluation"].get("pass@1")
        table.add_row(
            str(row["version"]),
            row["stage"],
            row["alias"],
            "" if measured is None else f"{measured:.2f}",
            row["digest"][:12],
            row["pipeline"],
        )
    print_table(table)


def promote(
    version: Annotated[int, typer.Argument(min=1, help="As r1 models numbers them.")],
    why: Why,
    model: Model = "r1",
    who: Who = None,
    home: Home = None,
) -> None:
    """Make a version the champion; the one so far is kept for a rollback."""
    entry = _registry(home).promote(model, version, who=who or getpass.getuser(), why=why)
    typer.echo(_said(entry))


def rollback(why: Why, model: Model = "r1", who: Who = None, home: Home = None) -> None:
    """Bring back the champion before this one."""
    typer.echo(_said(_registry(home).rollback(model, who=who or getpass.getuser(), why=why)))


def _registry(home: Path | None) -> "Registry":
    """The registry of a state folder in which something has run."""
    from services import views

    folder = use_home(home)
    views.open_views(views.store_url()).dispose()  # says so if nothing has, and creates nothing
    from services.registry import open_registry
    from services.store.ledger import open_ledger

    return open_registry(folder, open_ledger(views.store_url()))


def _row(version: "Version", head: "Promotion | None") -> dict[str, Any]:
    aliases = {head.champion: "champion", head.previous: "previous"} if head else {}
    return {
        "model": version.model,
        "version": version.number,
        "stage": version.stage,
        "alias": aliases.get(version.number, ""),
        "digest": version.digest,
        "parents": version.tags.get("parents", "").split(",")
        if version.tags.get("parents")
        else [],
        "pipeline": version.tags.get("pipeline", ""),
        "evaluation": json.loads(version.tags.get("evaluation", "{}")),
        "source": version.source,
    }


def _said(entry: "Promotion") -> str:
    before = f", previous is {entry.previous}" if entry.previous else ""
    return f"{entry.model} version {entry.champion} is champion{before} ({entry.who}: {entry.why})"


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
    from services.pretraining.build import measure
    from services.training.machine import prepare_machine

    folder, _ = resolve_model(f"bundled:{model}", Path())
    prepare_machine(chosen.engine)
    _print_measured(model, measure(folder, chosen).summary, as_json=as_json)


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
