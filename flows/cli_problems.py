"""``r1 problems``: the pool of added problems that a retraining trains on."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import (
    AsJson,
    Changes,
    Home,
    RecipeName,
    Who,
    print_json,
    print_table,
    use_home,
    user_or,
)

problems = typer.Typer(help="New problems for the next retraining.", no_args_is_help=True)
SHOWN_QUESTION = 60


@problems.command("add")
def add(
    file: Annotated[
        Path, typer.Argument(help="JSON lines: question, answer, kind, language, level.")
    ],
    kind: Annotated[str, typer.Option(help="Of rows that do not say theirs.")] = "",
    language: Annotated[str, typer.Option(help="Of rows that do not say theirs.")] = "",
    recipe: RecipeName = "tiny",
    changes: Changes = None,
    who: Who = None,
    home: Home = None,
) -> None:
    """Add the problems of a file, all or none; none that an evaluation asks, and none twice."""
    from services.recipes import load_recipe

    chosen = load_recipe(recipe, changes or ())
    use_home(home)
    from services.pool import open_pool
    from services.store import store_url

    pool = open_pool(store_url())
    added = pool.add_file(
        file, settings=chosen.problems, who=user_or(who), kind=kind, language=language
    )
    typer.echo(f"Added {added} problems; {pool.unused()} wait for a retraining.")


@problems.command("list")
def list_problems(
    unused: Annotated[bool, typer.Option("--unused", help="Only what no run trained on.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List the pool: question, where from, who, when, which runs trained on it."""
    from services import views
    from services.store import pool as table

    use_home(home)
    found = table.pooled(views.open_views(views.store_url()))
    rows = [row for row in found if not (unused and row.used_by)]
    if as_json:
        print_json([{**row._asdict(), "problem": asdict(row.problem)} for row in rows])
        return
    from rich.table import Table

    shown = Table("kind", "language", "level", "question", "from", "who", "when", "used by")
    for row in rows:
        shown.add_row(
            row.problem.kind,
            row.problem.language,
            str(row.problem.level),
            row.problem.question[:SHOWN_QUESTION],
            row.origin,
            row.who,
            f"{row.added_at.astimezone():%Y-%m-%d %H:%M}",
            ", ".join(row.used_by),
        )
    print_table(shown)


@problems.command("stats")
def stats(home: Home = None, as_json: AsJson = False) -> None:
    """Count the pool by kind, language and level."""
    from services import views
    from services.store import pool as table

    use_home(home)
    counts = table.counts(views.open_views(views.store_url()))
    if as_json:
        print_json(counts)
        return
    from rich.table import Table

    shown = Table("kind", "language", "level", "problems", "unused")
    for row in counts:
        shown.add_row(row.kind, row.language, *map(str, row[2:]))
    print_table(shown)


@problems.command("snapshot")
def snapshot(home: Home = None) -> None:
    """Freeze the pool into a file and print the digest that a recipe names it by."""
    from services.pool import open_pool
    from services.store import store_url

    folder = use_home(home)
    digest = open_pool(store_url()).snapshot(folder)
    typer.echo(f"To train on it: r1 run --set problems.pool={digest}", file=sys.stderr)
    typer.echo(digest)
