"""``r1 verify`` and ``r1 reward``: the reward layer, tried before you train."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import Changes, RecipeName
from services.errors import ProblemError, RecipeError
from services.prompts import Format

Lines = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE]",
        help='JSON lines {"kind", "problem", "gold", "completion", "language"}; '
        "without a file, or for -, standard input.",
    ),
]


def verify(file: Lines = None) -> None:
    """Say of each JSON line whether its answer is correct, wrong or unscorable."""
    from services.reward_check import verify_lines

    with _opened(file) as lines:
        _print_lines(verify_lines(lines))


def reward(
    file: Lines = None,
    recipe: RecipeName = "tiny",
    changes: Changes = None,
    stage: Annotated[
        str, typer.Option(help="The RL stage whose weights count: zero, dev2, r1 or student-rl.")
    ] = "zero",
    form: Annotated[
        Format, typer.Option("--format", help="The format that the prompt asked for.")
    ] = "r1",
) -> None:
    """Score each JSON line by the formula of a recipe, part by part."""
    from services.config import RL
    from services.recipes import load_recipe
    from services.reward_check import reward_lines

    chosen = load_recipe(recipe, changes or ())
    stages = {name.replace("_", "-"): part for name, part in chosen if isinstance(part, RL)}
    if stage not in stages:
        raise RecipeError(f"there is no RL stage {stage!r}", f"Choose one of {', '.join(stages)}")
    with _opened(file) as lines:
        _print_lines(reward_lines(lines, stages[stage].weights, form=form))


@contextmanager
def _opened(file: Path | None) -> Iterator[Iterable[str]]:
    """The lines of a file or of standard input, whatever the terminal's encoding."""
    try:
        if file is None or str(file) == "-":
            sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
            yield sys.stdin
        else:
            with file.open(encoding="utf-8") as lines:
                yield lines
    except OSError as error:
        if error.filename != str(file):
            raise
        raise ProblemError(
            f"cannot read {file}: {error.strerror}", "Name a file of JSON lines"
        ) from error
    except UnicodeDecodeError as error:
        raise ProblemError(
            f"the input is not UTF-8: {error}", "Convert it, for instance with iconv -t UTF-8"
        ) from error


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)
