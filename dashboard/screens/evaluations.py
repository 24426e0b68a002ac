"""Which model is better, by how much, and on which problems?"""

from collections.abc import Sequence
from typing import Final, get_args

import streamlit as st
from sqlalchemy import Engine

from dashboard import address, frame, panels, plain_text, stage_table
from dashboard.intervals import intervals
from dashboard.plain_text import visible
from services import views
from services.views import Evaluation, Run, comparisons
from services.views.comparisons import Answer, Estimate, Measured, PairedProblem, PairOrder

PAGE_SIZE: Final = 10
ANSWERS_SHOWN: Final = 2
LONGEST_ID: Final = 10
# Digits of the number of a problem; what is longer is none, and too much for a database.
COLUMNS: Final = (
    "cons@*", "pass@*", "format", "language/consistency", "length/mean", "gives_up", "helpfulness",
    "safety",
)  # fmt: skip
# Beside the interval of pass@1.
STUDENTS: Final = ("student-base", "student")
TAUGHT, TRAINED = "distill", "student-rl"
INTERVAL: Final = (
    "Share of right completions, mean over levels and problems. The line is a 95 % interval: "
    "Wilson's, at the number of independent completions that the spread between problems implies."
)


def page(engine: Engine, run: Run) -> None:
    """Intervals, the student's two teachers, and two models down to single problems."""
    models = frame.ask(run, comparisons.measured_models, engine, run.id)
    frame.live(run, lambda: _wait_for_more(engine, run, models))
    if not models:
        st.info("No model of this run has been measured yet; that is the stage evaluate.")
        return
    ids = tuple(model.id for model in models)
    estimates = frame.ask(run, comparisons.accuracy_estimates, engine, ids)
    _intervals(engine, run, models, estimates)
    _student(engine, run, models, estimates)
    _compare(engine, run, models)


def _wait_for_more(engine: Engine, run: Run, shown: Sequence[Measured]) -> None:
    """Draw the page anew when another model has been measured."""
    if len(frame.ask(run, comparisons.measured_models, engine, run.id)) > len(shown):
        st.rerun()


def _intervals(
    engine: Engine, run: Run, models: Sequence[Measured], estimates: Sequence[Estimate]
) -> None:
    levels = sorted({row.level for row in estimates if row.level})
    level = st.pills(
        "Level",
        levels,
        key="of_level",
        bind="query-params",
        help="Difficulty of the problems; none chosen: the mean over all levels.",
    )
    where = f"level {level}" if level else "all levels"
    panels.draw(
        f"pass@1 of every model, {where}",
        INTERVAL,
        intervals(models, estimates, level),
        name=f"{run.id}-pass1-{level or 'all'}",
    )
    evaluations = frame.ask(run, views.evaluation_table, engine, run.id)
    _table(run, evaluations, estimates, models)


def _table(
    run: Run,
    evaluations: Sequence[Evaluation],
    estimates: Sequence[Estimate],
    models: Sequence[Measured],
) -> None:
    names = {model.id: model.model for model in models}
    overall = {names[row.evaluation]: row for row in estimates if row.level is None}
    there = {name for row in evaluations for name in row.summary}
    columns = stage_table.chosen(COLUMNS, there - {"pass@1"})
    rows = []
    for row in evaluations:
        found = overall.get(row.model)
        rows.append(
            {
                "model": row.model,
                "pass@1": found.mean if found else row.summary.get("pass@1"),
                "95 % from": found.lower if found else None,
                "95 % to": found.upper if found else None,
                **{name: row.summary.get(name) for name in columns},
            }
        )
    panels.heading(
        "Every model on the held-out problems",
        "All models answer the same problems, drawn from the seed of the protocol.",
        download=lambda: panels.rows_as_csv(list(rows[0]), [list(row.values()) for row in rows]),
        name=f"{run.id}-stage-table",
    )
    shares = {
        name: st.column_config.NumberColumn(format="%.2f", help=INTERVAL)
        for name in ("pass@1", "95 % from", "95 % to")
    }
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        column_config=shares | stage_table.columns(columns),
    )
    protocol = ", ".join(f"{key} {value}" for key, value in evaluations[0].protocol.items())
    st.text(visible(f"Measured with {protocol}"))


def _student(
    engine: Engine, run: Run, models: Sequence[Measured], estimates: Sequence[Estimate]
) -> None:
    """What the same student learns from a teacher's traces, and what by itself."""
    by_name = {model.model: model for model in models}
    if TAUGHT not in by_name or TRAINED not in by_name:
        return
    st.subheader("One student: taught by traces, or trained by rewards", anchor=False)
    before = next((name for name in STUDENTS if name in by_name), None)
    shown = [by_name[name] for name in (before, TRAINED, TAUGHT) if name]
    chart, words = st.columns([3, 2], vertical_alignment="center")
    with chart:
        panels.draw(
            "pass@1 of the student",
            f"{INTERVAL} {TAUGHT}: fine-tuned on the rows of the data page. {TRAINED}: the same "
            "model, reinforcement learning alone.",
            intervals(shown, estimates, None),
            name=f"{run.id}-student",
        )
    with words:
        _say_difference(engine, run, by_name[TAUGHT], by_name[TRAINED])


def _say_difference(engine: Engine, run: Run, left: Measured, right: Measured) -> None:
    found = frame.ask(run, comparisons.paired_difference, engine, left.id, right.id)
    if found is None:
        st.info("The two have no problem in common.")
        return
    st.metric(
        f"{left.model} − {right.model}",
        f"{found.mean:+.3f}",
        border=True,
        help="Difference of pass@1 on the same problems, with a 95 % interval over problems.",
    )
    if found.lower > 0:
        verdict = f"{left.model} is better; the interval excludes zero."
    elif found.upper < 0:
        verdict = f"{right.model} is better; the interval excludes zero."
    else:
        verdict = "The interval includes zero: these problems do not tell them apart."
    even = found.problems - found.left_ahead - found.right_ahead
    st.text(
        f"95 %: {found.lower:+.3f} … {found.upper:+.3f}, paired over {found.problems} problems.\n"
        f"Ahead on {found.left_ahead}, behind on {found.right_ahead}, even on {even}.\n{verdict}"
    )


def _compare(engine: Engine, run: Run, models: Sequence[Measured]) -> None:
    st.subheader("Two models, problem by problem", anchor=False)
    chosen = _choose_models(engine, run, models)
    if chosen is None:
        return
    left, right = chosen
    words, filters = st.columns([2, 3])
    with words:
        _say_difference(engine, run, left, right)
    with filters, st.container(horizontal=True):
        order = st.selectbox("Order", get_args(PairOrder), key="pair_order", bind="query-params")
        level = st.number_input(
            "Level", 1, 99, None, key="pair_level", bind="query-params", placeholder="any"
        )
        language = panels.question_language(key="pair_language")
    asked = (left.id, right.id, level, language)
    count = frame.ask(run, comparisons.count_paired_problems, engine, *asked)
    if not count:
        st.info("No problem is like that. Loosen the filters.")
        return
    top, pages = st.container(), -(-count // PAGE_SIZE)
    number = address.pager(pages, key="pair_page", asked=(*asked, order))
    pairs = frame.ask(
        run, comparisons.paired_problems, engine, *asked, order=order, limit=PAGE_SIZE,
        offset=(number - 1) * PAGE_SIZE,
    )  # fmt: skip
    written = st.query_params.get("pair", "")
    shown = int(written) if written.isdecimal() and len(written) < LONGEST_ID else pairs[0].id
    with top:
        _pairs(run, pairs, left, right, shown)
    _one_problem(engine, run, left, right, shown)


def _choose_models(
    engine: Engine, run: Run, models: Sequence[Measured]
) -> tuple[Measured, Measured] | None:
    by_name = {model.model: model for model in models}
    names = list(by_name)
    columns = st.columns([2, 2, 3])
    first = names.index("r1") if "r1" in names else len(names) - 1
    address.keep_among("left", names, names[first])
    left = columns[0].selectbox("Left", names, index=first, key="left", bind="query-params")
    wanted = (run.id, st.session_state.get("against"), st.query_params.get("against"))
    found = frame.ask(None, views.list_runs, engine, also=tuple(name for name in wanted if name))
    runs = [other.id for other in found]
    address.follow("against", run.id)
    address.keep_among("against", runs, run.id)
    against = columns[2].selectbox(
        "Right comes from run",
        runs,
        index=runs.index(run.id),
        key="against",
        bind="query-params",
        help="Problems are the same across runs where their evaluation has the same seed.",
    )
    others = {
        model.model: model
        for model in frame.ask(run, comparisons.measured_models, engine, against or run.id)
    }
    if not others:
        columns[1].info("That run has measured no model.")
        return None
    rights = list(others)
    second = rights.index("r1-zero") if "r1-zero" in rights else 0
    address.keep_among("right", rights, rights[second])
    right = columns[1].selectbox("Right", rights, index=second, key="right", bind="query-params")
    return by_name[left or names[first]], others[right or rights[second]]


def _pairs(
    run: Run, pairs: Sequence[PairedProblem], left: Measured, right: Measured, number: int
) -> None:
    """The table to choose a problem from; the one that is shown is ticked where it is here."""
    panels.heading(
        f"Problems of {left.model} and {right.model}",
        "Shares of right completions. Choose a row to see what both models answered.",
        download=lambda: panels.rows_as_csv(PairedProblem._fields, pairs),
        name=f"{run.id}-{left.model}-{right.model}-problems",
    )
    share = st.column_config.ProgressColumn
    ids = [str(pair.id) for pair in pairs]
    ticked = [place for place, pair in enumerate(pairs) if pair.id == number]
    # Of these rows: a choice is a place in the table, and would go on to the next page.
    table = f"pairs/{left.id}/{right.id}/{number}/{ids}"
    st.dataframe(
        [
            {
                "question": visible(pair.question),
                "level": pair.level,
                "left": pair.left,
                "right": pair.right,
                "difference": pair.left - pair.right,
                "tokens left": pair.left_tokens,
                "tokens right": pair.right_tokens,
            }
            for pair in pairs
        ],
        hide_index=True,
        height="content",
        on_select=lambda: address.row_chosen(table, ids, key="pair"),
        selection_mode="single-row",
        selection_default={"selection": {"rows": ticked}},
        key=table,
        column_config={
            "left": share(left.model, min_value=0, max_value=1, format="%.2f", color="blue"),
            "right": share(right.model, min_value=0, max_value=1, format="%.2f", color="blue"),
            "difference": st.column_config.NumberColumn(
                format="%+.2f", help="Share of right completions, left minus right"
            ),
            "tokens left": st.column_config.NumberColumn(
                format="%.0f", help="Mean length of a completion, tokens"
            ),
            "tokens right": st.column_config.NumberColumn(
                format="%.0f", help="Mean length of a completion, tokens"
            ),
            "question": st.column_config.TextColumn(width="large"),
        },
    )


def _one_problem(engine: Engine, run: Run, left: Measured, right: Measured, number: int) -> None:
    """What both models answered to a problem."""
    sides = [
        (model, frame.ask(run, comparisons.answer_count, engine, model.id, number))
        for model in (left, right)
    ]
    problem = frame.ask(run, comparisons.problem_of, engine, number)
    most = max(count.all for _, count in sides)
    if problem is None or not most:
        st.info("Neither model answered the problem of the address. Choose a row above.")
        return
    with st.container(border=True):
        panels.heading("One problem", "Completions of both evaluations, in their order.")
        st.text(visible(f"{problem.question}\nReference: {problem.gold}"))
        pages = -(-most // ANSWERS_SHOWN)
        place = address.pager(pages, key="answers", asked=(left.id, right.id, number))
        for column, (model, count) in zip(st.columns(2), sides, strict=True):
            with column:
                st.markdown(f"`{model.model}`: {count.right} of {count.all} right")
                for row in frame.ask(
                    run,
                    comparisons.answers,
                    engine,
                    model.id,
                    number,
                    limit=ANSWERS_SHOWN,
                    offset=(place - 1) * ANSWERS_SHOWN,
                ):
                    _answer(row)


def _answer(row: Answer) -> None:
    parts = ", ".join(
        f"{name} {value:.2f}" for name, value in row.parts.items() if value is not None
    )
    facts = [
        f"sample {row.sample}",
        f"{row.length_tokens} tokens" + (", cut off" if row.truncated else ""),
        f"{row.reflective_words} reflective words",
        f"{row.language_share:.0%} in the question's language",
    ]
    st.badge(row.verdict, color="green" if row.verdict == "correct" else "orange")
    st.text(" · ".join(facts))
    plain_text.show(row.text)
    st.text(visible(f"{row.reason}. {parts}"))


frame.show("Evaluations", page)
