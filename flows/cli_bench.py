"""``r1 bench``: how fast a part is on this machine, beside what one would use instead."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_options import AsJson, Changes, Home, RecipeName, print_json
from services.errors import ArtifactError

bench = typer.Typer(help="Measure the speed of a part on this machine.", no_args_is_help=True)

Policy = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Model to measure with; by default the newest r1-zero of this home, else the "
        "recipe's base.",
    ),
]


@bench.command("rewards")
def bench_rewards(as_json: AsJson = False) -> None:
    """Completions scored in a second, against a plain loop over math-verify; about a minute."""
    from services.bench import rewards

    _print(json.loads(rewards.bench().to_json()), as_json)


@bench.command("sampler")
def bench_sampler(
    model: Policy = None,
    recipe: RecipeName = "tiny",
    changes: Changes = None,
    prompts: Annotated[int, typer.Option(min=1, help="Different prompts.")] = 16,
    group: Annotated[int, typer.Option(min=1, help="Completions of each.")] = 16,
    limit: Annotated[int | None, typer.Option(min=1, help="Longest completion.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each side.")] = 3,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The local sampler against generate of transformers, on the same prompts."""
    from services.bench import sampler
    from services.recipes import load_recipe

    chosen = load_recipe(recipe, changes or ())
    measured = sampler.bench(
        _model(model, chosen.models.base, home),
        chosen.problems,
        prompts=prompts,
        group_size=group,
        max_new_tokens=limit or chosen.zero.max_new_tokens,
        rounds=rounds,
    )
    _print(asdict(measured), as_json)


@bench.command("rl")
def bench_rl(
    model: Policy = None,
    recipe: RecipeName = "tiny",
    changes: Changes = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that count, after one to warm up.")] = 6,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each side.")] = 2,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """A whole GRPO step against stock TRL, with the same model, prompts and hyperparameters."""
    from services.bench import rl
    from services.recipes import load_recipe

    chosen = load_recipe(recipe, changes or ())
    folder = _model(model, chosen.models.base, home)
    _print(asdict(rl.bench(folder, chosen, steps=steps, rounds=rounds)), as_json)


@bench.command("registry")
def bench_registry(
    versions: Annotated[int, typer.Option(min=1, help="Versions to list.")] = 2_000,
    as_json: AsJson = False,
) -> None:
    """Listing many registered versions, beside a plain search of MLflow's; minutes to make them."""
    from services.bench import registry

    def report(number: int) -> None:
        typer.echo(f"{number:,} of {versions:,} versions made", err=True)

    _print(asdict(registry.bench(versions, report)), as_json)


@bench.command("dashboard")
def bench_dashboard(
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Store to fill and to read: sqlite:///FILE or postgresql://…; by default a file "
            "in the home. What else it holds stays as it is.",
        ),
    ] = None,
    completions: Annotated[int, typer.Option(min=100)] = 1_000_000,
    steps: Annotated[int, typer.Option(min=20, help="Of all runs together.")] = 10_000,
    runs: Annotated[int, typer.Option(min=1, max=100)] = 20,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Every page of the dashboard on a generated store, cold and warm; minutes to fill it once."""
    from flows.environment import home_folder
    from services.bench import pages
    from services.bench.filled_store import Size

    folder = home_folder(home)
    measured = pages.bench(
        store or f"sqlite:///{folder / 'bench' / 'dashboard.db'}",
        Size(completions, steps, runs),
        folder / "bench",
        lambda words: typer.echo(words, err=True),
    )
    if as_json:
        print_json(measured._asdict())
        return
    longest = max(len(page["page"]) for page in measured.pages)
    for page in measured.pages:
        typer.echo(
            f"{page['page']:<{longest}}  cold {page['cold_seconds']:5.2f} s   "
            f"warm {page['warm_seconds']:5.2f} s   {page['memory_mib']:5.0f} MiB   "
            f"{page['rows_loaded']:>6,} rows loaded, {page['rows_shown']:>6,} shown"
        )
    typer.echo("\n".join(measured.missed) or "Every page is within its bars.")


def _model(name: str | None, base: str, home: Path | None) -> Path:
    """The model asked for, or the newest r1-zero, because lengths are those of its stage."""
    from flows.environment import home_folder
    from services.base_models import resolve_model

    folder = home_folder(home)
    if name is None:
        made = sorted(
            (path.parent for path in folder.glob("artifacts/zero-*/manifest.json")),
            key=lambda path: path.stat().st_mtime,
        )
        if made:
            return made[-1]
    found = resolve_model(name or base, folder)[0]
    if not list(found.glob("*.safetensors")):
        raise ArtifactError(f"{found} holds no safetensors", "Name another model with --model")
    return found


def _print(measured: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(measured)
        return
    for name, value in measured.items():
        if isinstance(value, Mapping):
            typer.echo(name)
            for inner, figure in value.items():
                typer.echo(_line(f"  {inner}", figure))
        else:
            typer.echo(_line(name, value))


def _line(name: str, value: Any) -> str:
    if isinstance(value, float):
        shown = f"{value:,.1f}" if abs(value) >= 100 else f"{value:,.3g}"
    else:
        shown = f"{value:,}" if isinstance(value, int) else str(value)
    return f"{name.replace('_', ' '):<34} {shown:>16}"
