"""``r1 verify`` and ``r1 reward``: the reward layer, tried before you train.

Both read JSON lines from a file or from standard input and answer each with one JSON line as soon
as it is known, so they may stand in a pipe that never ends.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from flows.cli_options import Changes, Home, RecipeName, print_json, use_home
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


def verify(
    file: Lines = None,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Ask the judge about the same rows, and print how far it agrees with the rules.",
        ),
    ] = False,
    home: Home = None,
) -> None:
    """Say of each JSON line whether its answer is correct, wrong or unscorable."""
    from services.reward_lines import audit_lines, verify_lines

    use_home(home)  # the judge keeps its cache there
    with _opened(file) as lines:
        if audit:
            print_json(audit_lines(lines).figures())
        else:
            _print_lines(verify_lines(lines))


def reward(
    file: Lines = None,
    recipe: RecipeName = "tiny",
    changes: Changes = None,
    stage: Annotated[
        str, typer.Option(help="The RL stage whose formula counts: zero, dev2, r1 or student-rl.")
    ] = "zero",
    form: Annotated[
        Format | None,
        typer.Option("--format", help="The format of the completions; by default the recipe's."),
    ] = None,
    home: Home = None,
) -> None:
    """Score each JSON line by the formula of a recipe, part by part.

    Penalties on length need the length: give it with each line as "tokens".
    """
    from services.config import RL
    from services.recipes import load_recipe
    from services.reward_lines import reward_lines

    chosen = load_recipe(recipe, changes or ())
    stages = {name.replace("_", "-"): part for name, part in chosen if isinstance(part, RL)}
    if stage not in stages:
        raise RecipeError(f"there is no RL stage {stage!r}", f"Choose one of {', '.join(stages)}")
    formula = stages[stage]
    use_home(home)
    with _opened(file) as lines:
        _print_lines(
            reward_lines(
                lines,
                formula.weights,
                form=form or chosen.problems.format,
                shaping=formula.shaping,
                target_language=formula.target_language,
                max_tokens=formula.max_new_tokens,
            )
        )


@contextmanager
def _opened(file: Path | None) -> Iterator[IO[bytes]]:
    """The lines of a file or of standard input, as bytes: whose encoding it is, each line says."""
    if file is None or str(file) == "-":
        # Not sys.stdin: a thread that waits in it would hold it at exit.
        with open(0, "rb", closefd=False) as lines:
            yield lines
        return
    try:
        lines = file.open("rb")
    except OSError as error:
        raise ProblemError(
            f"cannot read {file}: {error.strerror}", "Name a file of JSON lines"
        ) from error
    with lines:
        yield lines


def _print_lines(lines: Iterable[str]) -> None:
    """Print UTF-8 whatever the terminal's encoding: it is JSON."""
    for line in lines:
        typer.echo(line.encode())
