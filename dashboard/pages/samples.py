"""What did it say? Completions of a stage, by what is known about them.

Whatever a model wrote is shown as plain text; control characters become visible signs.
"""

from typing import get_args

import streamlit as st
from sqlalchemy import Engine

from dashboard import frame, plain_text
from dashboard.plain_text import visible
from services import views
from services.types import Verdict
from services.views import Completion, CompletionFilter, Order, Run, Stage

PAGE_SIZE = 10
FLAGS = {
    "truncated": "cut off",
    "mixed_language": "mixes languages",
    "false_claim": "claims success wrongly",
}


def page(engine: Engine, run: Run) -> None:
    """Filters, then completions."""
    stages = [
        stage
        for stage in views.run_overview(engine, run.id).stages
        if stage.kind == "rl" and stage.last_step
    ]
    if not stages:
        st.info("No stage of this run has sampled yet; completions appear with its first step.")
        return
    stage, wanted, order = _choose(stages)
    listing = st.container()
    number = st.number_input("Page", 1, key="page", bind="query-params", width=140)
    found = views.step_samples(
        engine,
        run.id,
        stage.name,
        wanted,
        order=order,
        limit=PAGE_SIZE,
        offset=(number - 1) * PAGE_SIZE,
    )
    with listing:
        if not found:
            st.info("No completion is like that. Loosen the filters, or go back to page 1.")
        for sample in found:
            _draw(sample)


def _choose(stages: list[Stage]) -> tuple[Stage, CompletionFilter, Order]:
    """The filters; each one is part of the address."""
    by_name = {stage.name: stage for stage in stages}
    first, second = st.columns(4), st.columns([1, 1, 2])
    name = first[0].selectbox("Stage", by_name, key="stage", bind="query-params")
    stage = by_name[name or stages[0].name]
    verdict = first[1].selectbox(
        "Verdict", [v.value for v in Verdict], index=None, key="verdict", bind="query-params"
    )
    language = first[2].selectbox(
        "Question in", ["en", "zh"], index=None, key="language", bind="query-params"
    )
    order = first[3].selectbox("Order", get_args(Order), index=1, key="order", bind="query-params")
    step = second[0].number_input(
        "Step", 0, stage.last_step, None, key="step", bind="query-params", placeholder="any"
    )
    level = second[1].number_input(
        "Level", 1, 99, None, key="level", bind="query-params", placeholder="any"
    )
    contains = second[2].text_input("Contains", key="contains", bind="query-params")
    flags = st.pills(
        "Only those that", list(FLAGS), format_func=FLAGS.__getitem__, selection_mode="multi",
        key="only", bind="query-params",
    )  # fmt: skip
    wanted = CompletionFilter(
        first_step=step,
        last_step=step,
        verdict=verdict,
        language=language,
        level=level,
        contains=contains,
        truncated=True if "truncated" in flags else None,
        mixed_language=True if "mixed_language" in flags else None,
        false_claim=True if "false_claim" in flags else None,
    )
    return stage, wanted, order or "latest"


def _draw(sample: Completion) -> None:
    with st.container(border=True):
        st.text(" · ".join(_facts(sample)))
        st.text(visible(sample.question))
        plain_text.show(sample.text)
        st.text(visible(f"{sample.verdict}: {sample.reason}. {_parts(sample)}"))


def _facts(sample: Completion) -> list[str]:
    facts = [
        f"step {sample.step}",
        f"group {sample.group}",
        f"sample {sample.sample}",
        f"{sample.length_tokens} tokens",
        f"{sample.reflective_words} reflective words",
        f"{sample.language_share:.0%} in {sample.question_language}",
        f"advantage {sample.advantage:+.2f}",
    ]
    return facts + [word for flag, word in FLAGS.items() if getattr(sample, flag, False)]


def _parts(sample: Completion) -> str:
    total = "no reward" if sample.total is None else f"reward {sample.total:.2f}"
    known = {name: value for name, value in sample.parts.items() if value is not None}
    parts = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
    return f"{total} ({parts})" if parts else total


frame.show("Samples", page)
