"""The same question through training: its answers side by side, words of reflection marked.

By model: the held-out questions, which every model of the run was asked. By step: held-out ones
that a stage was asked again and again while it trained (``eval_every``), and those of its training
that came up more than once; a small world never asks twice, a finite data set does.
"""

from collections.abc import Sequence
from typing import Final

import streamlit as st
from sqlalchemy import Engine

from dashboard import address, emergence_charts, frame, panels, plain_text
from dashboard.charts import Columns
from dashboard.plain_text import visible
from services import views
from services.reflection import REFLECTIVE
from services.views import Answer, Answers, Question, Run

BY_MODEL: Final = "held-out, by model"
BY_STEP: Final = "in training, by step"
MOST_COLUMNS: Final = 4
FIRST_LOOK: Final = ("base", "r1-zero", "r1")
MEANING: Final = (
    "One question, answered by the models of this run or at the steps of one stage; bars are the "
    "mean length of its answers, the line is the share of them that is right"
)


def draw(engine: Engine, run: Run, stages: Sequence[str]) -> None:
    """The panel; nothing where no question was asked twice yet."""
    st.subheader("The same question through training", anchor=False)
    left, middle, right = st.columns([2, 3, 1], vertical_alignment="bottom")
    with left:
        way = st.segmented_control(
            "Asked", [BY_MODEL, BY_STEP], default=BY_MODEL, key="asked", bind="query-params",
            required=True,
        )  # fmt: skip
    stage = ""
    if way == BY_STEP:
        with right:
            address.keep_among("question_stage", stages, stages[0])
            stage = st.selectbox("Stage", stages, key="question_stage", bind="query-params")
    found = _questions(engine, run, stage)
    if not found:
        st.info(
            "No question was asked at two steps of this stage; eval_every in a recipe asks "
            "held-out ones. Look at the models instead."
            if stage
            else "Every model is asked the held-out questions in the stage evaluate."
        )
        return
    with middle:
        question = _choose(found)
    st.text(visible(question.question))
    answers = (
        frame.ask(run, views.answers_by_step, engine, run.id, stage, question.problem)
        if stage
        else frame.ask(run, views.answers_by_model, engine, run.id, question.problem)
    )
    labels = [_label(answer) for answer in answers]
    _overview(run, question, labels, answers)
    _side_by_side(engine, run, stage, question, dict(zip(labels, answers, strict=True)))


def _questions(engine: Engine, run: Run, stage: str) -> list[Question]:
    if stage:
        return frame.ask(run, views.repeated_questions, engine, run.id, stage)
    return frame.ask(run, views.held_out_questions, engine, run.id)


def _choose(found: Sequence[Question]) -> Question:
    """The question of the address, else the first; the address names it by its id."""
    by_id = {question.problem: question for question in found}
    name = address.named(
        "Question",
        list(by_id),
        key="of_question",
        format_func=lambda name: _title(by_id[name]),
    )
    return by_id[name]


def _title(question: Question) -> str:
    level = f"level {question.level}, " if question.level else ""
    text = visible(question.question.strip()).replace("\n", " ")
    return f"{text[:70]} ({level}{question.language}, {question.times} times)"


def _label(answers: Answers) -> str:
    return answers.model or f"step {answers.step}"


def _overview(
    run: Run, question: Question, labels: Sequence[str], answers: Sequence[Answers]
) -> None:
    columns: Columns = {
        "where": list(labels),
        "right": [answer.right for answer in answers],
        "tokens": [answer.mean_tokens for answer in answers],
        "reflective words": [answer.reflective_words for answer in answers],
        "samples": [answer.samples for answer in answers],
    }
    drawn = emergence_charts.history(labels, columns)
    panels.draw("How it was answered", MEANING, drawn, name=f"{run.id}-question-{question.problem}")


def _side_by_side(
    engine: Engine, run: Run, stage: str, question: Question, answers: dict[str, Answers]
) -> None:
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    first = [label for label in FIRST_LOOK if label in answers] or _spread(list(answers))
    address.follow("at", first)
    address.keep_among("at", answers, otherwise=first)
    chosen = left.multiselect(
        "Side by side", list(answers), default=first, key="at", bind="query-params",
        max_selections=MOST_COLUMNS,
    )  # fmt: skip
    most = max((answer.samples for answer in answers.values()), default=1)
    address.keep_within("answer", most)
    number = right.number_input(
        "Answer", 1, most, key="answer", bind="query-params",
        help="Each model and step gave several answers; this one of each is shown.",
    )  # fmt: skip
    for column, label in zip(st.columns(max(2, len(chosen))), chosen, strict=False):
        with column:
            one = answers[label]
            st.text(f"{label}: {one.right:.0%} of {one.samples} right")
            ask = (engine, run.id, *((stage, question.problem, one.step) if stage
                                     else (one.model, question.problem)))  # fmt: skip
            query = views.answer_at_step if stage else views.answer_of_model
            _show(frame.ask(run, query, *ask, (number - 1) % one.samples))


def _spread(labels: list[str]) -> list[str]:
    """The first, the middle and the last."""
    return list(dict.fromkeys(labels[place] for place in (0, len(labels) // 2, -1)))


def _show(answer: Answer | None) -> None:
    if answer is None:
        st.text("This answer is not stored.")
        return
    plain_text.show_pieces(plain_text.pieces(answer.text, REFLECTIVE))
    facts = [f"{answer.verdict}: {answer.reason}", f"{answer.length_tokens} tokens",
             f"{answer.reflective_words} reflective words",
             f"{answer.language_share:.0%} in its language"]  # fmt: skip
    st.text(visible(" · ".join([*facts, "gave up"] if answer.gave_up else facts)))
