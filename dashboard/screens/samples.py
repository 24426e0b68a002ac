"""What did it say, and why that reward? Completions of a stage, by what is known about them.

Whatever a model wrote is shown as plain text; control characters become visible signs.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean, pstdev
from typing import Any, Final, get_args

import streamlit as st
from sqlalchemy import Engine

from dashboard import address, frame, histograms, panels, plain_text
from dashboard.plain_text import visible
from services import views
from services.reflection import REFLECTIVE
from services.types import Verdict
from services.views import Completion, CompletionFilter, Order, Run, Stage

PAGE_SIZE: Final = 10
GROUP_COLUMNS: Final = 3
LARGEST_GROUP: Final = 64
EXPORTED: Final = views.MAX_SAMPLES
WIDTH, WIDEST = 0.1, 3
# Of a bar of rewards; and the sum of weights up to which it is so wide, and not twice as wide.
FLAGS: Final = {
    "truncated": "cut off",
    "mixed_language": "mixes languages",
    "false_claim": "claims success wrongly",
}
CLEARED: Final[dict[str, Any]] = {
    "verdict": None, "language": None, "order": "latest", "step": None, "level": None,
    "contains": "", "only": [], "part": "total", "part_from": None, "part_below": None,
    "tokens_from": None, "tokens_to": None, "problem": "", "group": None, "page": 1,
}  # fmt: skip
# Keys of the widgets, which the address names them by, and what they are when nothing is asked.


def page(engine: Engine, run: Run) -> None:
    """Filters, then completions; or one group side by side."""
    stages = _sampled(engine, run)
    frame.live(run, lambda: _say_news(engine, run, stages))
    if not stages:
        st.info("No stage of this run has sampled yet; completions appear with its first step.")
        return
    stage, wanted, order = _choose(stages)
    if wanted.group is not None and wanted.first_step is not None:
        _side_by_side(engine, run, stage, wanted)
    else:
        _listing(engine, run, stage, wanted, order)


def _sampled(engine: Engine, run: Run) -> list[Stage]:
    """Stages that have sampled."""
    stages = frame.ask(run, views.run_overview, engine, run.id).stages
    return [stage for stage in stages if stage.kind == "rl" and stage.last_step]


def _say_news(engine: Engine, run: Run, shown: Sequence[Stage]) -> None:
    """What came in since the page was drawn; it is not exchanged under the eyes of a reader."""
    now = _sampled(engine, run)
    if now and not shown:
        st.rerun()
    known = {stage.name: stage.last_step for stage in shown}
    for stage in now:
        if stage.last_step > known.get(stage.name, 0) and st.button(
            f"{stage.name} is at step {stage.last_step} now: look again",
            key=f"news/{stage.name}",
            icon=":material/refresh:",
            type="tertiary",
        ):
            st.rerun()


def _choose(stages: list[Stage]) -> tuple[Stage, CompletionFilter, Order]:
    """The filters; each one is part of the address."""
    by_name = {stage.name: stage for stage in stages}
    first, second = st.columns(4), st.columns([1, 1, 2, 3])
    address.keep_among("stage", by_name, stages[0].name)
    name = first[0].selectbox("Stage", by_name, key="stage", bind="query-params")
    stage = by_name[name or stages[0].name]
    verdict = first[1].selectbox(
        "Verdict", [v.value for v in Verdict], index=None, key="verdict", bind="query-params",
        placeholder="any",
        help="What the verifier said: right, wrong, or that it could not judge.",
    )  # fmt: skip
    language = panels.question_language(first[2])
    order = first[3].selectbox(
        "Order", get_args(Order), index=1, key="order", bind="query-params",
        help="By reward, those without one (unscorable) are left out.",
    )  # fmt: skip
    address.keep_within("step", stage.last_step, otherwise=None)
    step = second[0].number_input(
        "Step", 1, stage.last_step, None, key="step", bind="query-params", placeholder="any"
    )
    level = second[1].number_input(
        "Level", 1, 99, None, key="level", bind="query-params", placeholder="any",
        help="Difficulty, as the source of the problem says.",
    )  # fmt: skip
    contains = second[2].text_input(
        "Contains", key="contains", bind="query-params",
        help=f"Looked for in the first {views.SEARCHED:,} completions that are like the rest says.",
    )  # fmt: skip
    flags = second[3].pills(
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
    return stage, _choose_more(wanted), order or "latest"


def _choose_more(wanted: CompletionFilter) -> CompletionFilter:
    """The rarer filters, folded away unless one is set."""
    keys = ("part_from", "part_below", "tokens_from", "tokens_to", "problem", "group")
    any_set = any(st.session_state.get(key) or st.query_params.get(key) for key in keys)
    any_set = any_set or st.session_state.get("part", "total") != "total"
    with st.expander("Reward part, length, problem, group", expanded=any_set):
        columns = st.columns(7)
        part = columns[0].selectbox(
            "Reward part", views.PARTS, key="part", bind="query-params", on_change=_show_all,
            help="Total is the weighted sum; the others are parts before weighting.",
        )  # fmt: skip
        numbers: dict[str, Any] = {"value": None, "bind": "query-params", "placeholder": "any"}
        low = columns[1].number_input("from", key="part_from", step=0.1, format="%g", **numbers)
        below = columns[2].number_input(
            "below", key="part_below", step=0.1, format="%g", **numbers,
            help="A click on a bar of the reward sets both bounds.",
        )  # fmt: skip
        least = columns[3].number_input("Tokens from", 0, key="tokens_from", **numbers)
        most = columns[4].number_input("to", 0, key="tokens_to", **numbers)
        problem = columns[5].text_input(
            "Problem", key="problem", bind="query-params", help="The id its source gave it."
        )
        group = columns[6].number_input(
            "Group", 0, key="group", **numbers,
            help="With a step: all answers to one question, side by side.",
        )  # fmt: skip
        st.button("Clear all filters", on_click=_set_filters, icon=":material/filter_alt_off:")
    return wanted._replace(
        part=part or "total", min_part=low, below_part=below, min_tokens=least, max_tokens=most,
        problem=problem or None, group=group,
    )  # fmt: skip


def _show_all() -> None:
    """Bounds of one part of the reward mean nothing for another."""
    st.session_state.update(part_from=None, part_below=None, page=1)


def _set_filters(**values: Any) -> None:
    """Clear all filters but the stage, and set these; bound widgets put them into the address."""
    for key, value in {**CLEARED, **values}.items():
        st.session_state[key] = value


def _spread(
    engine: Engine, run: Run, stage: Stage, wanted: CompletionFilter, weights: Mapping[str, float]
) -> None:
    """How the chosen part of the reward is spread; a click on a bar shows its completions."""
    whole = wanted.part == "total"
    span = sum(abs(weight) for weight in weights.values()) if whole else 1.0
    bars = frame.ask(
        run, views.reward_histogram, engine, run.id, stage.name,
        wanted._replace(min_part=None, below_part=None),
        width=WIDTH * max(1, math.ceil(span / WIDEST)),
    )  # fmt: skip
    if not bars:
        return
    part = "reward" if whole else f"reward part {wanted.part}"
    capped = sum(bar.completions for bar in bars) >= views.MAX_COUNT
    latest = f" of the latest {views.MAX_COUNT:,}" if capped else ""
    panels.draw(
        f"How the {part}{latest} is spread",
        "Completions that are as the filters say, whatever their reward. Click a bar to see its "
        "completions alone, and beside the bars to see all again.",
        histograms.histogram(bars, part, wanted.min_part, wanted.below_part),
        name=f"{run.id}-{stage.name}-{wanted.part}",
        picked=_show_bar,
    )


def _show_bar(picked: Mapping[str, Any]) -> None:
    """Bound the reward by the bar that was clicked, or no more."""
    ends = picked[histograms.PICK]
    least, below = (ends[0][end] if ends else None for end in histograms.ENDS)
    st.session_state.update(part_from=least, part_below=below, page=1)


def _listing(
    engine: Engine, run: Run, stage: Stage, wanted: CompletionFilter, order: Order
) -> None:
    weights = frame.ask(run, views.reward_weights, engine, run.id, stage.name)
    _spread(engine, run, stage, wanted, weights)
    asked = (engine, run.id, stage.name, wanted)
    count = frame.ask(run, views.count_samples, *asked, order=order)
    if not count:
        st.info("No completion is like that. Loosen the filters, or clear them.")
        return
    pages = -(-count // PAGE_SIZE)
    left, middle, right = st.columns([2, 3, 1], vertical_alignment="center")
    with middle:
        number = address.pager(pages, key="page", asked=(run.id, stage.name, wanted, order))
    start = (number - 1) * PAGE_SIZE
    least = " or more" if count == views.MAX_COUNT else ""
    left.text(
        f"Completions: {count:,}{least}, here {start + 1:,} to {min(start + PAGE_SIZE, count):,}"
    )
    with right:
        _export(engine, run, stage, wanted, order)
    found = frame.ask(run, views.step_samples, *asked, order=order, limit=PAGE_SIZE, offset=start)
    for sample in found:
        _draw(stage, sample, weights)


def _export(engine: Engine, run: Run, stage: Stage, wanted: CompletionFilter, order: Order) -> None:
    """The selection as JSON lines; read when it is asked for."""

    def lines() -> str:
        found = views.step_samples(engine, run.id, stage.name, wanted, order=order, limit=EXPORTED)
        rows = (json.dumps({"run": run.id, **s._asdict()}, ensure_ascii=False) for s in found)
        return "".join(f"{row}\n" for row in rows)

    st.download_button(
        "Export", lines, file_name=f"{run.id}-{stage.name}.jsonl", mime="application/jsonl",
        icon=":material/download:", on_click="ignore",
        help=f"The selection as JSON lines, the first {EXPORTED:,} in this order.",
    )  # fmt: skip


def _draw(stage: Stage, sample: Completion, weights: Mapping[str, float]) -> None:
    place = f"{sample.stage}/{sample.step}/{sample.group}/{sample.sample}"
    with st.container(border=True):
        st.text(" · ".join(_facts(sample)))
        st.text(visible(sample.question))
        plain_text.show_pieces(plain_text.pieces(sample.text, REFLECTIVE))
        st.text(visible(f"{sample.verdict}: {sample.reason}. {_why(sample, weights)}"))
        with st.container(horizontal=True):
            st.button(
                "Its group", key=f"group/{place}", icon=":material/view_column:", type="tertiary",
                on_click=partial(
                    _set_filters, stage=stage.name, step=sample.step, group=sample.group
                ),
                help="All answers to this question at this step, with their advantages.",
            )  # fmt: skip
            st.button(
                "Its problem", key=f"problem/{place}", icon=":material/history:", type="tertiary",
                on_click=partial(
                    _set_filters, stage=stage.name, problem=sample.problem, order="step"
                ),
                help="Every answer to this question in this stage, step by step.",
            )  # fmt: skip
            st.text(visible(f"problem {sample.problem}"))


def _side_by_side(engine: Engine, run: Run, stage: Stage, wanted: CompletionFilter) -> None:
    """One group: the answers to one question, the best first, and why their advantages differ."""
    st.button("Back to all completions", on_click=_set_filters, icon=":material/arrow_back:")
    group = CompletionFilter(wanted.first_step, wanted.last_step, wanted.group)
    found = frame.ask(
        run, views.step_samples, engine, run.id, stage.name, group, order="step",
        limit=LARGEST_GROUP,
    )  # fmt: skip
    if not found:
        st.info("There is no such group at this step.")
        return
    found = sorted(found, key=lambda sample: -sample.advantage)
    names = ("sample", "advantage", "total", "verdict", "reason", "length_tokens", "text")
    panels.heading(
        f"Group {wanted.group} of step {wanted.first_step}",
        "Answers to one question are compared with each other alone: the advantage is the reward "
        "less the mean of the group, over its deviation where the recipe scales by it. A group "
        "whose rewards are all equal is dead: nothing is learned from it.",
        download=lambda: panels.rows_as_csv(
            names, [[getattr(sample, name) for name in names] for sample in found]
        ),
        name=f"{run.id}-{stage.name}-step-{wanted.first_step}-group-{wanted.group}",
    )
    st.text(visible(found[0].question))
    st.text(_group_facts(found))
    weights = frame.ask(run, views.reward_weights, engine, run.id, stage.name)
    for start in range(0, len(found), GROUP_COLUMNS):
        # Row by row, so that a phone shows the best first, too.
        row = found[start : start + GROUP_COLUMNS]
        for column, sample in zip(st.columns(GROUP_COLUMNS), row, strict=False):
            with column, st.container(border=True):
                _draw_member(sample, weights)


def _draw_member(sample: Completion, weights: Mapping[str, float]) -> None:
    st.text(f"sample {sample.sample} · advantage {sample.advantage:+.2f}")
    st.text(visible(_why(sample, weights)))
    plain_text.show_pieces(plain_text.pieces(sample.text, REFLECTIVE))
    st.text(visible(f"{sample.verdict}: {sample.reason}. {sample.length_tokens} tokens"))


def _group_facts(found: Sequence[Completion]) -> str:
    rewards = [sample.total for sample in found if sample.total is not None]
    right = sum(sample.verdict == Verdict.CORRECT.value for sample in found)
    facts = [f"{len(found)} answers, {right} right", f"problem {found[0].problem}"]
    if rewards:
        facts.append(f"reward {fmean(rewards):.2f} ± {pstdev(rewards):.2f}")
        if len(set(rewards)) == 1:
            facts.append("dead: all rewards are equal")
    return visible(" · ".join(facts))


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


def _why(sample: Completion, weights: Mapping[str, float]) -> str:
    """The reward as its formula; or its parts, where the recipe does not say how they add up."""
    known = {name: value for name, value in sample.parts.items() if value is not None}
    if sample.total is None:
        return "no reward"
    terms = [(weights[name], name, value) for name, value in known.items() if weights.get(name)]
    if terms and abs(sum(weight * value for weight, _, value in terms) - sample.total) < 1e-6:
        sums = " + ".join(f"{weight:g} × {name} {value:.2f}" for weight, name, value in terms)
        return f"reward {sample.total:.2f} = {sums}"
    parts = ", ".join(f"{name} {value:.2f}" for name, value in known.items())
    return f"reward {sample.total:.2f} ({parts})" if parts else f"reward {sample.total:.2f}"


frame.show("Samples", page)
