"""Which model is champion, since when and why, what is it made of, and should another one be?"""

import json
from collections.abc import Callable, Sequence
from typing import Final

import streamlit as st
from sqlalchemy import Engine
from streamlit.elements.lib.column_types import ColumnConfig

from dashboard import address, approvals, family, frame, panels, people, places, stage_table
from dashboard.moments import utc
from dashboard.plain_text import visible
from services import views
from services.access import Actor
from services.catalog import Catalog, ModelVersion, RegisteredModel, exported_files
from services.errors import R1Error
from services.store.ledger import Promotion
from services.views import ancestry
from services.views.ancestry import Ancestor

PAGE_SIZE: Final = 10
LARGEST_DOWNLOAD_BYTES: Final = 64 * 2**20
# A bigger file is taken from its folder: a browser gets it through this process's memory.
LONGEST_NUMBER: Final = 9
# Digits of a version's number.
COLUMNS: Final[dict[str, ColumnConfig]] = {
    name: st.column_config.Column(help=meaning)
    for name, meaning in {
        "stage": "The stage of the recipe that made the checkpoint",
        "alias": "Champion, candidate, previous champion, or a name of your own",
        "run": "The run that registered it",
        "digest": "Beginning of the digest over the checkpoint's files",
    }.items()
}
SHOWN_FIRST: Final = ("pass@1", "cons@16", "format", "language/consistency", "safety")


def page(engine: Engine) -> None:
    """Versions of one registered model, its champions, and what can be done about them."""
    catalog = places.catalog()
    models = catalog.models()
    if not models:
        raise views.MissingStoreError(
            "nothing was registered yet", "The gate of a run does that: r1 run"
        )
    actor = people.here()
    by_name = {model.name: model for model in models}
    with st.container(horizontal=True):
        name = st.selectbox(
            "Model", by_name, key="model", bind="query-params", width=300, on_change=_newest
        )
    model = by_name[name or models[0].name]
    history = catalog.history(model.name)
    _figures(model, history)
    if told := st.session_state.pop("told", None):
        st.success(told)
    approvals.draw(actor, engine, model.name)
    version = _versions(catalog, model)
    _actions(actor, model, version, history)
    _version(engine, catalog, version, model)
    _history(history)
    _exports(engine, version)


def _newest() -> None:
    """Of another model: a version's number means nothing there."""
    st.query_params.pop("version", None)
    st.session_state["versions_page"] = 1


def _figures(model: RegisteredModel, history: Sequence[Promotion]) -> None:
    def named(alias: str) -> str:
        return f"version {model.aliases[alias]}" if alias in model.aliases else "none"

    figures = {
        "Champion": (named("champion"), "What is served and exported; models:/NAME@champion"),
        "Candidate": (named("candidate"), "What was last put up for promotion"),
        "Previous": (named("previous"), "What a rollback would bring back"),
        "Versions": (f"{model.latest}", "Checkpoints registered under this name"),
    }
    for column, (label, (value, meaning)) in zip(st.columns(4), figures.items(), strict=True):
        column.metric(label, value, border=True, help=meaning)
    if history:
        last = history[-1]
        st.text(visible(f"Since {utc(last.at)} UTC, {last.action} by {last.who}: {last.why}"))


def _versions(catalog: Catalog, model: RegisteredModel) -> ModelVersion:
    """The table of versions, and the one that is looked at."""
    top = st.container()
    pages = max(1, -(-model.latest // PAGE_SIZE))
    number = address.pager(pages, key="versions_page", asked=model.name)
    shown = catalog.versions(model.name, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE)
    rows = [
        {
            "version": row.number,
            "stage": row.stage,
            "alias": ", ".join(row.aliases),
            **{name: row.evaluation.get(name) for name in SHOWN_FIRST},
            "registered, UTC": utc(row.registered_at),
            "run": row.pipeline,
            "digest": row.digest[:12],
        }
        for row in shown
    ]
    wanted = _wanted(model)
    names = [str(row.number) for row in shown]
    table = f"versions/{model.name}/{number}/{wanted}"
    with top:
        panels.heading(
            f"Versions of {model.name}",
            "One for each checkpoint; shares are 0…1 on held-out problems. Choose a row to look "
            "at it.",
            download=lambda: panels.rows_as_csv(list(rows[0]), [list(r.values()) for r in rows]),
            name=f"{model.name}-versions",
        )
        st.dataframe(
            rows,
            hide_index=True,
            height="content",
            on_select=lambda: address.row_chosen(table, names, key="version"),
            selection_mode="single-row",
            selection_default={
                "selection": {"rows": [names.index(f"{wanted}")] if f"{wanted}" in names else []}
            },
            key=table,
            column_config={**COLUMNS, **stage_table.columns(SHOWN_FIRST)},
        )
    found = next((row for row in shown if row.number == wanted), None)
    return found or catalog.version(model.name, wanted)


def _wanted(model: RegisteredModel) -> int:
    """The version of the address; else the candidate, the champion, or the newest one."""
    asked = st.query_params.get("version", "")
    if asked.isdecimal() and len(asked) <= LONGEST_NUMBER and 0 < int(asked) <= model.latest:
        return int(asked)
    aliases = model.aliases
    return aliases.get("candidate", aliases.get("champion", model.latest))


def _actions(
    actor: Actor,
    model: RegisteredModel,
    version: ModelVersion,
    history: Sequence[Promotion],
) -> None:
    is_champion = model.aliases.get("champion") == version.number
    with st.container(horizontal=True):
        if people.button(
            actor,
            "promote",
            f"Promote version {version.number}",
            key="promote",
            type="primary",
            disabled=is_champion,
            icon=":material/arrow_upward:",
        ):
            _confirm_promotion(actor, model, version, history)
        if people.button(
            actor,
            "roll back",
            "Roll back",
            key="roll_back",
            disabled="previous" not in model.aliases,
            icon=":material/undo:",
        ):
            _confirm_rollback(actor, model)


def _confirm_promotion(
    actor: Actor,
    model: RegisteredModel,
    version: ModelVersion,
    history: Sequence[Promotion],
) -> None:
    now = model.aliases.get("champion")
    before = f"version {now}" if now else "no version"
    _confirm(
        "Promote",
        f"Version {version.number} (stage {version.stage}) becomes champion of {model.name}; "
        f"{before} is champion now.",
        lambda why: places.control().promote(
            actor,
            model.name,
            version.number,
            why=why,
            seen=history[-1].sequence if history else 0,
        ),
    )


def _confirm_rollback(actor: Actor, model: RegisteredModel) -> None:
    _confirm(
        "Roll back",
        f"Version {model.aliases['previous']} becomes champion of {model.name} again, in place "
        f"of version {model.aliases['champion']}.",
        lambda why: places.control().roll_back(actor, model.name, why=why),
    )


def _confirm(title: str, what: str, act: Callable[[str], Promotion]) -> None:
    """Ask for a note, and once more; what is refused is said and nothing has changed."""

    @st.dialog(title)
    def ask() -> None:
        st.text(what)
        why = st.text_area("Why? It is kept with your name.", key="why", max_chars=2000)
        if not st.button(title, key="confirmed", type="primary", disabled=not why.strip()):
            return
        try:
            entry = act(why)
        except R1Error as error:
            st.error("That was refused; nothing has changed.")
            st.text(visible(str(error)))
            return
        frame.forget()
        st.session_state["told"] = f"Version {entry.champion} is champion of {entry.model} now."
        st.rerun()

    ask()


def _version(
    engine: Engine, catalog: Catalog, version: ModelVersion, model: RegisteredModel
) -> None:
    st.subheader(f"Version {version.number}", anchor=False)
    st.text(
        visible(
            f"Stage {version.stage} of {version.pipeline or 'no run'}, registered "
            f"{utc(version.registered_at)} UTC\nDigest {version.digest}"
        )
    )
    measured, gate = st.columns([3, 2])
    with measured:
        _measured(catalog, version, model)
    with gate:
        _gate(engine, version)
    line = frame.ask(None, ancestry.ancestry, engine, version.digest)
    if line:
        panels.heading(
            "What it is made of",
            "Stages back to the base model. Solid: a model, to be trained on or to sample from. "
            "Dashed: data or rewards.",
            download=lambda: panels.rows_as_csv(
                Ancestor._fields, [[*row[:-1], json.dumps(row.inputs)] for row in line]
            ),
            name=f"{version.model}-{version.number}-ancestry",
        )
        panels.graph(family.family_dot(line), "Stages behind this version")


def _measured(catalog: Catalog, version: ModelVersion, model: RegisteredModel) -> None:
    number = model.aliases.get("champion")
    champion = catalog.version(model.name, number) if number else None
    rows = [
        {
            "metric": name,
            "this version": value,
            "champion": champion.evaluation.get(name) if champion else None,
            "difference": value - champion.evaluation[name]
            if champion and name in champion.evaluation
            else None,
            "what it is": stage_table.metric(name).meaning,
        }
        for name, value in sorted(version.evaluation.items())
    ]
    if not rows:
        st.info("This version was not evaluated.")
        return
    panels.heading(
        "What it showed, beside the champion",
        "The evaluation that was registered with it: shares are 0…1, lengths are tokens.",
        download=lambda: panels.rows_as_csv(list(rows[0]), [list(r.values()) for r in rows]),
        name=f"{version.model}-{version.number}-evaluation",
    )
    number_column = st.column_config.NumberColumn
    st.dataframe(
        rows,
        hide_index=True,
        height=320,
        column_config={
            "this version": number_column(format="%.3f"),
            "champion": number_column(format="%.3f"),
            "difference": number_column(format="%+.3f"),
        },
    )


def _gate(engine: Engine, version: ModelVersion) -> None:
    panels.heading(
        "What the gate said", "Every decision on this checkpoint, with what it was held against."
    )
    found = frame.ask(None, ancestry.decisions_on, engine, version.digest)
    if not found:
        st.text("No gate has looked at it.")
    for decision in found:
        with st.container(border=True):
            st.badge(
                "promoted" if decision.promoted else "not promoted",
                color="green" if decision.promoted else "orange",
            )
            reasons = "\n".join(f"• {reason}" for reason in decision.reasons)
            st.text(visible(f"{utc(decision.decided_at)} UTC\n{reasons}"))


def _history(history: Sequence[Promotion]) -> None:
    if not history:
        return
    rows = [
        {
            "no.": entry.sequence,
            "when, UTC": utc(entry.at),
            "action": entry.action,
            "champion": entry.champion,
            "previous": entry.previous,
            "who": visible(entry.who),
            "why": visible(entry.why),
        }
        for entry in reversed(history[-100:])
    ]
    panels.heading(
        "Champions, newest first",
        "Entries are never changed or removed; the first row says who is champion.",
        download=lambda: panels.rows_as_csv(list(rows[0]), [list(r.values()) for r in rows]),
        name="champions",
    )
    st.dataframe(
        rows,
        hide_index=True,
        height="content" if len(rows) < PAGE_SIZE else 360,
    )


def _exports(engine: Engine, version: ModelVersion) -> None:
    """Files of the exports that were made from this checkpoint."""
    folders = frame.ask(None, ancestry.exports_of, engine, version.digest)
    files = [file for folder in folders for file in exported_files(places.inside(folder))]
    if not files:
        return
    panels.heading(
        "Exported files",
        "A Hugging Face folder that needs nothing of this project: from_pretrained loads it. Paths "
        "are below the state folder, R1_HOME.",
    )
    for file in files:
        with st.container(horizontal=True, vertical_alignment="center"):
            if file.size <= LARGEST_DOWNLOAD_BYTES:
                st.download_button(
                    file.name,
                    lambda path=file.path: places.read(path),  # type: ignore[misc]
                    file_name=file.name.rpartition("/")[2],
                    key=f"export/{file.path}",
                    icon=":material/download:",
                    type="tertiary",
                    on_click="ignore",
                )
            st.text(f"{_size(file.size)} · {places.shown(file.path)}", width="content")


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


frame.show_store("Models", page)
