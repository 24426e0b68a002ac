"""Options that several commands have, and how answers are printed."""

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.table import Table

PIPE_WIDTH: Final = 200
"""Columns of a table that no terminal limits; files and pipes get it uncut."""

Home = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="State folder; by default R1_HOME, else .r1 here."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
RecipeName = Annotated[
    str, typer.Option(metavar="NAME", help="A bundled recipe, or the path of a .toml file.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change the recipe, as in zero.steps=20; services/config.py lists the keys.",
    ),
]
Model = Annotated[
    str,
    typer.Option(metavar="NAME", help="Registered model: r1, or r1-distill-STUDENT."),
]
Why = Annotated[str, typer.Option(help="For what reason; it is kept.")]
Who = Annotated[str | None, typer.Option(help="Who decides; by default the user logged in.")]


def user_or(who: str | None) -> str:
    """The name that is kept with a decision."""
    return who or getpass.getuser()


def use_home(home: Path | None) -> Path:
    """Point everything that reads ``R1_HOME`` at the state folder, which need not exist.

    While ``r1 up`` serves it, its servers are used.
    """
    from flows.environment import home_folder, served_addresses

    folder = home_folder(home)
    os.environ["R1_HOME"] = str(folder)
    for name, value in served_addresses(folder).items():
        os.environ.setdefault(name, value)
    return folder


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print plain data; times are ISO 8601, and what is no number is null."""
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def print_table(table: "Table") -> None:
    """Print a table as wide as it wants to be, or as the terminal is."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and value - value != 0:  # NaN or infinite
        return None
    return value
