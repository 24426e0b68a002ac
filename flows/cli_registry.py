"""``r1 models``, ``promote``, ``rollback``, ``pin``, ``policy``, ``approvals``, ``webhooks`` ….

Whatever somebody decides here is written down with who and why, as the gate's own decisions are.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import (
    AsJson,
    Home,
    Model,
    Who,
    Why,
    print_json,
    print_table,
    use_home,
    user_or,
)
from services.errors import RegistryError

if TYPE_CHECKING:
    from services.approvals import Approvals
    from services.registry import Registry
    from services.store.approvals import ApprovalRequest
    from services.store.ledger import Promotion
    from services.versions import Version

Number = Annotated[int, typer.Argument(min=1, help="As r1 models numbers them.")]
Request = Annotated[int, typer.Argument(min=1, help="As r1 approvals list numbers them.")]

approvals = typer.Typer(help="Candidates that wait for a person.", no_args_is_help=True)
webhooks = typer.Typer(help="Who is told when a champion changes.", no_args_is_help=True)


def models(
    model: Model = "r1",
    history: Annotated[
        bool, typer.Option("--history", help="Every change of champion instead, oldest first.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many versions; 0: all.")] = 50,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List the versions of a registered model, or who changed its champion and why."""
    registry = open_line(home)
    entries = registry.history(model)
    if history:
        _print_history(model, entries, as_json=as_json)
        return
    rows = [_row(version, entries) for version in registry.versions(model, limit or None)]
    if as_json:
        print_json(rows)
        return
    if not rows:
        raise RegistryError(
            f"there is no registered model {model!r}",
            "The gate of a pipeline registers them: r1 run",
        )
    from rich.table import Table

    table = Table("version", "stage", "alias", "pass@1", "digest", "pipeline", "notes", title=model)
    for row in rows:
        measured = row["evaluation"].get("pass@1")
        table.add_row(
            str(row["version"]),
            row["stage"],
            row["alias"],
            "" if measured is None else f"{measured:.2f}",
            row["digest"][:12],
            row["pipeline"],
            "; ".join(_notes(row)),
        )
    print_table(table)


def promote(
    version: Number, why: Why, model: Model = "r1", who: Who = None, home: Home = None
) -> None:
    """Make a version the champion; the one so far is kept for a rollback."""
    entry = open_line(home).promote(model, version, who=user_or(who), why=why)
    typer.echo(_said(entry))


def rollback(why: Why, model: Model = "r1", who: Who = None, home: Home = None) -> None:
    """Bring back the champion before this one."""
    typer.echo(_said(open_line(home).rollback(model, who=user_or(who), why=why)))


def pin(version: Number, why: Why, model: Model = "r1", who: Who = None, home: Home = None) -> None:
    """Keep a version, and what it was made from, from retention."""
    open_line(home).pin(model, version, who=user_or(who), why=why)
    typer.echo(f"{model} version {version} is pinned.")


def unpin(version: Number, model: Model = "r1", home: Home = None) -> None:
    """Let retention have a version again."""
    open_line(home).unpin(model, version)
    typer.echo(f"{model} version {version} is not pinned any more.")


def policy(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="Registered model.")] = "r1",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Show what a registered model asks of its next champion, and which files say so."""
    from services.policies import load_policy, policy_files

    folder = use_home(home)
    found = load_policy(model, folder).model_dump(mode="json")
    if as_json:
        print_json(found)
        return
    files = ", then ".join(map(str, policy_files(model, folder)))
    typer.echo(f"{model}: {files or 'defaults, there is no file'}")
    for key, value in found.items():
        typer.echo(f"{key} = {value}")


def watch(model: Model = "r1", home: Home = None, as_json: AsJson = False) -> None:
    """Compare the champion on fresh problems with its baseline; exit code 1 if it is worse."""
    registry = open_line(home)
    from services.monitoring import recheck
    from services.store import store_url
    from services.webhooks import open_announcer

    announcer = open_announcer(store_url())
    report = recheck(use_home(home), store_url(), registry, model, announcer.alarm)
    if as_json:
        named = {"model": report.model, "version": report.version, "check": report.number}
        print_json(named | {"changes": report.changes})
    else:
        typer.echo(f"{model} version {report.version}, check {report.number}")
        for change in report.changes:
            typer.secho(
                f"{'ALARM' if change.alarm else 'ok':<6}{change.name}: {change.message}",
                fg="red" if change.alarm else None,
            )
    if report.alarms:
        raise typer.Exit(1)


def open_line(home: Path | None) -> "Registry":
    """The registry of a state folder in which something has run."""
    from services import views

    folder = use_home(home)
    url = views.store_url()
    views.open_views(url).dispose()  # says so if nothing has, and creates nothing
    from services import line

    return line.open_line(folder, url)


def _print_history(model: str, entries: "list[Promotion]", *, as_json: bool) -> None:
    if as_json:
        print_json(entries)
        return
    if not entries:
        raise RegistryError(f"{model} never had a champion", "See its versions with: r1 models")
    from rich.table import Table

    table = Table("entry", "when", "what", "champion", "previous", "who", "why", title=model)
    for entry in entries:
        table.add_row(
            str(entry.sequence),
            f"{entry.at.astimezone():%Y-%m-%d %H:%M}",
            entry.action,
            str(entry.champion),
            str(entry.previous or ""),
            entry.who,
            entry.why,
        )
    print_table(table)


def _row(version: "Version", entries: "list[Promotion]") -> dict[str, Any]:
    head = entries[-1] if entries else None
    aliases = {head.champion: "champion", head.previous: "previous"} if head else {}
    made = [entry for entry in entries if entry.champion == version.number]
    return {
        "model": version.model,
        "version": version.number,
        "stage": version.stage,
        "alias": aliases.get(version.number, ""),
        "digest": version.digest,
        "parents": list(version.parents),
        "data": [digest for digest in version.tags.get("data", "").split(",") if digest],
        "pipeline": version.tags.get("pipeline", ""),
        "recipe_digest": version.tags.get("recipe_digest", ""),
        "evaluation": version.measured,
        "evaluation_ids": list(version.evaluation_ids),
        "promotion": made[-1] if made else None,
        "pin": version.pin,
        "removed": version.removed,
        "source": version.source,
    }


def _notes(row: dict[str, Any]) -> list[str]:
    """Who made it champion, who pinned it, who removed its files."""
    notes = []
    if row["promotion"]:
        made = row["promotion"]
        notes.append(f"{made.action} {made.at.astimezone():%Y-%m-%d}: {made.who}: {made.why}")
    if row["pin"]:
        notes.append(f"pinned: {row['pin']['who']}: {row['pin']['why']}")
    if row["removed"]:
        notes.append(f"files removed: {row['removed']['who']}: {row['removed']['why']}")
    return notes


def _said(entry: "Promotion") -> str:
    before = f", previous is {entry.previous}" if entry.previous else ""
    return f"{entry.model} version {entry.champion} is champion{before} ({entry.who}: {entry.why})"


@approvals.command("list")
def approvals_list(
    everything: Annotated[
        bool, typer.Option("--all", help="Those that were answered, too.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List what waits for an answer; what has waited too long ends as its policy says."""
    book = _approvals(home)
    book.expire()
    found = book.all() if everything else book.pending()
    if as_json:
        print_json(found)
    elif found:
        _print_requests(found)
    else:
        typer.echo("Nothing waits for approval.")


@approvals.command("approve")
def approvals_approve(request: Request, why: Why, who: Who = None, home: Home = None) -> None:
    """Say yes: the candidate becomes champion."""
    found = _approvals(home).decide(request, approve=True, who=user_or(who), why=why)
    typer.echo(f"{found.model} version {found.version} is approved: {found.outcome}")


@approvals.command("reject")
def approvals_reject(request: Request, why: Why, who: Who = None, home: Home = None) -> None:
    """Say no: the champion stays."""
    found = _approvals(home).decide(request, approve=False, who=user_or(who), why=why)
    typer.echo(f"{found.model} version {found.version} is rejected.")


def _approvals(home: Path | None) -> "Approvals":
    registry = open_line(home)
    from services.approvals import open_approvals
    from services.store import store_url

    return open_approvals(store_url(), registry)


def _print_requests(found: "list[ApprovalRequest]") -> None:
    from rich.table import Table

    table = Table(
        "request", "model", "version", "state", "until", "then", "answer", "the gate said"
    )
    for row in found:
        table.add_row(
            str(row.id),
            row.model,
            str(row.version),
            row.state,
            f"{row.expires_at.astimezone():%Y-%m-%d %H:%M}",
            row.at_timeout,
            f"{row.who}: {row.why}" if row.who else "",
            "; ".join(row.reasons),
        )
    print_table(table)


@webhooks.command("add")
def webhooks_add(
    url: Annotated[str, typer.Argument(help="https, or http to this machine.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="Only of this model.")] = "",
    secret_variable: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable with the signing secret.")
    ] = "",
    who: Who = None,
    home: Home = None,
) -> None:
    """Tell an address of every change of champion and every alarm from now on."""
    from services.store import store_url
    from services.webhooks import open_announcer, require_deliverable

    require_deliverable(url)
    use_home(home)
    number = open_announcer(store_url()).subscribe(
        url, who=user_or(who), model=model, secret_variable=secret_variable
    )
    typer.echo(f"Subscription {number}: {url}")


@webhooks.command("list")
def webhooks_list(home: Home = None, as_json: AsJson = False) -> None:
    """List the addresses and what they were last told."""
    from services import views
    from services.store import webhooks as table

    use_home(home)
    engine = views.open_views(views.store_url())
    rows = []
    for row in table.subscriptions(engine):
        told = table.deliveries(engine, row.id)
        owed = [message for message in told if message.sent_at is None]
        error = next((message.error for message in owed if message.error), "")
        rows.append({**row._asdict(), "sent": len(told) - len(owed), "owed": len(owed)}
                    | {"error": error})  # fmt: skip
    if as_json:
        print_json(rows)
        return
    for found in rows:
        error = f", {found['error']}" if found["error"] else ""
        about = f"{found['id']}: {found['url']} ({found['model'] or 'every model'})"
        typer.echo(f"{about}: {found['sent']} sent, {found['owed']} owed{error}")


@webhooks.command("remove")
def webhooks_remove(
    number: Annotated[int, typer.Argument(min=1, help="As r1 webhooks list numbers them.")],
    home: Home = None,
) -> None:
    """Tell an address nothing more."""
    from services.store import store_url
    from services.webhooks import open_announcer

    use_home(home)
    open_announcer(store_url()).unsubscribe(number)
    typer.echo(f"Subscription {number} has ended.")


@webhooks.command("send")
def webhooks_send(home: Home = None) -> None:
    """Send what is still owed; exit code 1 if something stays owed."""
    from services.store import store_url
    from services.webhooks import open_announcer

    use_home(home)
    owed = open_announcer(store_url()).catch_up()
    typer.echo(f"{owed} messages are owed." if owed else "Nothing is owed.")
    if owed:
        raise typer.Exit(1)
