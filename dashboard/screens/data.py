"""What is taught, what is not, and why? Curated data sets down to the single row."""

from typing import Final

import streamlit as st
from sqlalchemy import Engine

from dashboard import address, frame, funnels, links, panels, places, plain_text, rewrites
from dashboard.plain_text import visible
from services import views
from services.types import DropReason
from services.views import Run, Stage, datasets
from services.views.datasets import Candidate, Checkpoint, CuratedFilter, Example

PAGE_SIZE: Final = 5
MEANING: Final = {
    DropReason.KEPT: "Goes into the data set",
    DropReason.UNSCORABLE: "No verifier could say whether the answer is right",
    DropReason.WRONG: "The answer is not the one asked for",
    DropReason.FORMAT: "Not one <think> block followed by one <answer> block",
    DropReason.MIXED_LANGUAGE: "Too few words of the thinking are in one language",
    DropReason.REPETITION: "Tries the same thing more often than allowed",
    DropReason.UNREADABLE: "Too long, with slips in it, or not to be retold",
    DropReason.DUPLICATE: "Says the same as a row that was kept",
    DropReason.QUOTA: "Enough rows of this problem were kept",
    DropReason.REVIEWER: "A reviewer rejected it",
}


def page(engine: Engine, run: Run) -> None:
    """Funnel, examples and rows of one data set."""
    stages = [
        stage
        for stage in frame.ask(run, views.run_overview, engine, run.id).stages
        if stage.kind == "curation"
    ]
    if not stages:
        st.info("No data set of this run has been curated yet; the first comes after r1-zero.")
        return
    names = [stage.name for stage in stages]
    with st.container(horizontal=True):
        address.keep_among("set", names, names[0])
        name = st.selectbox("Data set", names, key="set", bind="query-params", width=220)
    chosen = next(stage for stage in stages if stage.name == (name or names[0]))
    frame.live(run, lambda: _funnel(engine, run, chosen))
    if frame.ask(run, views.curation_funnel, engine, run.id, chosen.name):
        _rows(engine, run, chosen)


def _funnel(engine: Engine, run: Run, stage: Stage) -> None:
    counts = frame.ask(run, views.curation_funnel, engine, run.id, stage.name)
    if not counts:
        st.info(f"{stage.name} is being sampled; its rows appear when it is curated.")
        return
    total = sum(count.rows for count in counts)
    kept = sum(count.rows for count in counts if count.reason == DropReason.KEPT)
    figures = {
        "Candidates": (f"{total:,}", "Samples and written rows that could be taught"),
        "Kept": (f"{kept:,}", "Rows of the data set"),
        "Share kept": (f"{kept / total:.0%}", "Kept rows over candidates"),
        "Sources": (
            f"{len({count.source for count in counts})}",
            "Checkpoints and written sources that candidates came from",
        ),
    }
    for column, (label, (value, meaning)) in zip(st.columns(4), figures.items(), strict=True):
        column.metric(label, value, border=True, help=meaning)
    panels.draw(
        f"What became of the candidates of {stage.name}",
        "Reasons in the order in which they are tried; a candidate is dropped by the first.",
        funnels.funnel(counts),
        name=f"{run.id}-{stage.name}-funnel",
    )
    _examples(frame.ask(run, datasets.curation_examples, engine, run.id, stage.name))


def _examples(examples: list[Example]) -> None:
    panels.heading(
        "One example of each",
        "The first candidate that ended this way; the filter below shows all of them.",
    )
    st.dataframe(
        [
            {
                "how it ended": example.reason,
                "meaning": MEANING[DropReason(example.reason)],
                "row": example.row,
                "question": visible(example.question),
                "trace, beginning": visible(example.original),
            }
            for example in examples
        ],
        hide_index=True,
        height="content",
        column_config={
            "row": st.column_config.NumberColumn(help="Its place among the candidates, from 0"),
            "trace, beginning": st.column_config.TextColumn(width="large"),
        },
    )


def _rows(engine: Engine, run: Run, stage: Stage) -> None:
    st.subheader("Every candidate", anchor=False)
    wanted = _choose(engine, run, stage)
    found = frame.ask(run, datasets.count_curated_rows, engine, run.id, stage.name, wanted)
    if not found:
        st.info("No candidate is like that. Loosen the filters.")
        return
    listing = st.container()
    pages = -(-found // PAGE_SIZE)
    number = address.pager(pages, key="rows_page", asked=(run.id, stage.name, wanted))
    rows = frame.ask(
        run,
        datasets.curated_rows,
        engine,
        run.id,
        stage.name,
        wanted,
        limit=PAGE_SIZE,
        offset=(number - 1) * PAGE_SIZE,
    )
    sources = sorted({row.source for row in rows})
    made_by = frame.ask(run, datasets.checkpoints_by_digest, engine, run.id, sources)
    with listing:
        panels.heading(
            f"{found:,} candidates",
            "Rewrites are shown against the original: struck out is what was removed, underlined "
            "what was added.",
            download=lambda: panels.rows_as_csv(Candidate._fields, rows),
            name=f"{run.id}-{stage.name}-rows",
        )
        for row in rows:
            _draw(row, made_by.get(row.source))


def _choose(engine: Engine, run: Run, stage: Stage) -> CuratedFilter:
    """The filters; each one is part of the address."""
    counts = frame.ask(run, views.curation_funnel, engine, run.id, stage.name)
    reasons = list(dict.fromkeys(count.reason for count in counts))
    sources = sorted({count.source for count in counts})
    made_by = frame.ask(run, datasets.checkpoints_by_digest, engine, run.id, sources)
    columns = st.columns([2, 2, 1, 3])
    address.keep_among("reason", reasons)
    address.keep_among("source", sources)
    reason = columns[0].selectbox(
        "How it ended",
        reasons,
        index=None,
        key="reason",
        bind="query-params",
        placeholder="any",
    )
    source = columns[1].selectbox(
        "Came from",
        sources,
        index=None,
        key="source",
        bind="query-params",
        placeholder="anywhere",
        format_func=lambda digest: _origin(digest, made_by.get(digest)),
    )
    language = panels.question_language(columns[2], key="row_language")
    contains = columns[3].text_input(
        "Trace contains", key="trace", bind="query-params", placeholder="a word or a phrase"
    )
    return CuratedFilter(reason, source, language, contains)


def _draw(row: Candidate, made_by: Checkpoint | None) -> None:
    kept = row.reason == DropReason.KEPT
    with st.container(border=True):
        facts = [
            f"row {row.row}",
            row.kind,
            f"level {row.level}" if row.level else "",
            row.language,
        ]
        with st.container(horizontal=True, horizontal_alignment="distribute"):
            st.badge(row.reason, color="green" if kept else "orange", help=_meaning(row.reason))
            st.text(" · ".join(filter(None, facts)), width="content")
        st.text(visible(row.question))
        if row.rewritten and row.rewritten != row.original:
            original, taught = st.columns(2)
            with original:
                st.caption("Original trace")
                plain_text.show(row.original)
            with taught:
                st.caption("As it is taught, against the original")
                plain_text.show_pieces(rewrites.changes(row.original, row.rewritten))
        else:
            st.caption("Original trace, taught as it is" if kept else "Original trace")
            plain_text.show(row.original)
        _say_origin(row, made_by)


def _say_origin(row: Candidate, made_by: Checkpoint | None) -> None:
    if made_by is None:
        st.text(f"Came from: {visible(_origin(row.source, None))}")
        return
    path = places.shown(places.inside(made_by.path)) if made_by.path else ""
    st.text(
        f"Sampled from the checkpoint {made_by.digest[:12]} that stage {made_by.stage} of "
        f"{made_by.run} made" + (f"\n{path}" if path else "")
    )
    if made_by.kind == "rl":
        links.to_page(
            "samples",
            f"Completions of {made_by.stage} in training",
            run=made_by.run,
            stage=made_by.stage,
        )


def _origin(source: str, made_by: Checkpoint | None) -> str:
    if made_by is not None:
        return f"{made_by.stage} ({made_by.digest[:12]})"
    return source if len(source) < 24 else f"checkpoint {source[:12]}"


def _meaning(reason: str) -> str:
    return MEANING.get(DropReason(reason), "") if reason in set(DropReason) else ""


frame.show("Data", page)
