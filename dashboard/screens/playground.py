"""How do two models answer my question? Side by side, with what the reward says of each answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import streamlit as st
from sqlalchemy import Engine

from dashboard import address, frame, panels, people, places, plain_text
from dashboard.moments import utc
from dashboard.plain_text import visible
from services.access import Actor, Role
from services.catalog import Catalog, ModelVersion, RegisteredModel
from services.errors import R1Error
from services.playground import (
    KINDS,
    MAX_QUESTION_CHARACTERS,
    MAX_SAMPLES,
    MAX_SECONDS,
    MAX_TOKENS,
    Asked,
    Question,
    Reply,
    Talker,
    load_talker,
    puzzle,
)
from services.store.ratings import Preferred, Rating, now
from services.views import MissingStoreError, opinions

LEVELS: Final = (2, 3, 4, 5, 6)
DEFAULT_TOKENS: Final = 256
VERDICTS: Final[dict[Preferred, str]] = {
    "left": "Left is better",
    "right": "Right is better",
    "both": "Both are good",
    "neither": "Neither is good",
}
SAID: Final[dict[str, str]] = dict(VERDICTS.items())
NOTHING: Final = "general"
PARTS: Final = {
    "accuracy": "1 if the answer verifies against the reference",
    "format": "1 if it is one <think> block and one <answer> block",
    "language": "Share of words of the thinking in the question's language",
}


def page(engine: Engine) -> None:
    """Two models, one question, their answers, a rating."""
    catalog = places.catalog()
    models = catalog.models()
    if not models:
        raise MissingStoreError("nothing was registered yet", "The gate of a run does that: r1 run")
    actor = people.here()
    sides = _choose_models(catalog, models)
    question = _question()
    settings = _settings()
    asked = st.button(
        "Ask both",
        key="ask",
        type="primary",
        icon=":material/send:",
        disabled=not question.text.strip() or actor.role < Role.VIEWER,
    )
    if asked:
        _ask(catalog, sides, question, settings)
    shown = st.session_state.get("replies")
    if shown:
        _answers(*shown)
        _rate(actor, *shown)
    _opinions(engine)


def _choose_models(catalog: Catalog, models: Sequence[RegisteredModel]) -> list[ModelVersion]:
    """Two versions; by default the champion and the candidate, or the newest other one."""
    line = models[0]
    left_default = line.aliases.get("champion", line.latest)
    others = [line.aliases.get("candidate"), line.aliases.get("previous"), line.latest]
    right_default = next((n for n in others if n and n != left_default), max(1, left_default - 1))
    chosen = []
    for column, side, default in zip(
        st.columns(2), ("left", "right"), (left_default, right_default), strict=True
    ):
        with column, st.container(horizontal=True):
            name = st.selectbox(
                f"{side.title()} model",
                [model.name for model in models],
                key=f"{side}_model",
                bind="query-params",
            )
            model = next(model for model in models if model.name == (name or line.name))
            latest = max(1, model.latest)
            address.keep_within(f"{side}_version", latest, otherwise=latest)
            number = st.number_input(
                "Version",
                1,
                latest,
                min(default, latest),
                key=f"{side}_version",
                bind="query-params",
            )
        version = catalog.version(model.name, number)
        with column:
            measured = version.evaluation.get("pass@1")
            facts = [
                f"stage {version.stage}",
                ", ".join(version.aliases),
                "" if measured is None else f"pass@1 {measured:.2f}",
                version.digest[:12],
            ]
            st.text(visible(" · ".join(filter(None, facts))))
        chosen.append(version)
    return chosen


def _question() -> Question:
    """What to ask; a puzzle of the small world fills in all fields."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        level = st.selectbox(
            "Level", LEVELS, index=2, key="puzzle_level", bind="query-params", width=110,
            on_change=_draw_anew,
        )  # fmt: skip
        language = st.selectbox(
            "Language", ["en", "zh"], key="puzzle_language", bind="query-params", width=110,
            on_change=_draw_anew,
        )  # fmt: skip
        first = puzzle(level, language, 0)
        st.session_state.setdefault("drawn", first.text)
        if st.button("Draw a puzzle", key="draw", icon=":material/casino:"):
            turn = st.session_state.get("puzzles", 1)  # the first look has number 0
            st.session_state["puzzles"] = turn + 1
            _fill_in(puzzle(level, language, turn))
    text = st.text_area(
        "Question",
        first.text,
        key="question",
        bind="query-params",
        max_chars=MAX_QUESTION_CHARACTERS,
        height=80,
        help="Asked in the R1-Zero template.",
    )
    kind_column, gold_column = st.columns([1, 3])
    kind = kind_column.selectbox(
        "Verified as",
        KINDS,
        index=KINDS.index(first.kind),
        key="kind",
        bind="query-params",
        format_func=lambda kind: "not verified" if kind == NOTHING else kind,
        help="Which rule compares an answer with the reference.",
    )
    gold = gold_column.text_input(
        "Reference", first.gold, key="gold", bind="query-params", disabled=kind == NOTHING
    )
    return Question(text, kind or NOTHING, gold if kind != NOTHING else "", language)


def _draw_anew() -> None:
    """Of another level or language; what somebody wrote is kept."""
    if st.session_state["question"] == st.session_state["drawn"]:
        _fill_in(puzzle(st.session_state["puzzle_level"], st.session_state["puzzle_language"], 0))


def _fill_in(drawn: Question) -> None:
    st.session_state.update(question=drawn.text, kind=drawn.kind, gold=drawn.gold, drawn=drawn.text)


def _settings() -> dict[str, float | int]:
    columns = st.columns(4)
    return {
        "samples": columns[0].number_input(
            "Answers of each", 1, MAX_SAMPLES, 1, key="samples", bind="query-params"
        ),
        "max_new_tokens": columns[1].number_input(
            "Most tokens", 1, MAX_TOKENS, DEFAULT_TOKENS, key="tokens", bind="query-params"
        ),
        "temperature": columns[2].number_input(
            "Temperature", 0.05, 2.0, 0.6, step=0.05, key="temperature", bind="query-params"
        ),
        "seed": columns[3].number_input(
            "Seed", 0, 2**31, 0, key="seed", bind="query-params",
            help="The same seed gives the same answers.",
        ),
    }  # fmt: skip


def _ask(
    catalog: Catalog,
    sides: Sequence[ModelVersion],
    question: Question,
    settings: dict[str, float | int],
) -> None:
    found: list[Asked] = []
    with st.spinner(f"At most {MAX_SECONDS:.0f} s each"):
        for version in sides:
            try:
                talker = _talker(version.digest, str(catalog.folder(version)))
                found.append(
                    talker.ask(
                        question,
                        samples=int(settings["samples"]),
                        temperature=float(settings["temperature"]),
                        max_new_tokens=int(settings["max_new_tokens"]),
                        seed=int(settings["seed"]),
                    )
                )
            except R1Error as error:
                st.error(f"Version {version.number} of {version.model} gave no answer.")
                st.text(visible(str(error)))
                return
    st.session_state["replies"] = (list(sides), question, found)
    st.session_state.pop("rated", None)


@st.cache_resource(max_entries=2, show_spinner="Loading the model")
def _talker(_digest: str, folder: str) -> Talker:
    """One entry per checkpoint; the two last asked stay in memory."""
    return load_talker(Path(folder))


def _answers(sides: Sequence[ModelVersion], question: Question, found: Sequence[Asked]) -> None:
    st.subheader("Answers", anchor=False)
    st.text(visible(question.text))
    for column, version, asked in zip(st.columns(2), sides, found, strict=True):
        with column:
            st.markdown(f"**{version.model}** version {version.number}")
            st.text(f"{asked.seconds:.1f} s, {asked.tokens_per_second:,.0f} tokens/s")
            for place, reply in enumerate(asked.replies):
                _reply(place, reply)


def _reply(place: int, reply: Reply) -> None:
    with st.container(border=True):
        right = reply.score.parts.get("accuracy")
        with st.container(horizontal=True, vertical_alignment="center"):
            if right is not None:
                st.badge("right" if right else "wrong", color="green" if right else "orange")
            facts = [
                f"answer {place + 1}",
                f"{reply.tokens} tokens" + (", cut off" if reply.truncated else ""),
                f"{reply.facts.reflective_words} reflective words",
            ]
            st.text(" · ".join(facts), width="content")
        with st.expander("Thinking", expanded=True):
            plain_text.show(reply.think or "(none)")
        st.caption("Answer")
        plain_text.show(reply.answer or "(none)")
        if not reply.think and not reply.answer:
            st.caption("The whole completion: it keeps no format")
            plain_text.show(reply.text)
        for column, (name, value) in zip(
            st.columns(max(3, len(reply.score.parts))), reply.score.parts.items(), strict=False
        ):
            column.metric(name, f"{value:.2f}", help=PARTS.get(name, "A part of the reward"))
        total = "no total" if reply.score.total is None else f"reward {reply.score.total:.2f}"
        st.text(visible(f"{total}: {reply.score.reason}"))


def _rate(
    actor: Actor, sides: Sequence[ModelVersion], question: Question, found: Sequence[Asked]
) -> None:
    panels.heading(
        "Your rating", "Kept with your name, the two first answers and the digests of the models."
    )
    rated: Preferred | None = st.session_state.get("rated")
    if rated is not None:
        st.success(f"Kept. {VERDICTS[rated]}; ask again to rate again.")
        return
    note = st.text_input("Note", key="note", placeholder="why, in a few words", max_chars=2000)
    with st.container(horizontal=True):
        for preferred, label in VERDICTS.items():
            if people.button(actor, "rate answers", label, key=f"rate/{preferred}"):
                left, right = sides
                rating = Rating(
                    actor.name,
                    question.text,
                    f"{left.model} {left.number}",
                    left.digest,
                    found[0].replies[0].text,
                    f"{right.model} {right.number}",
                    right.digest,
                    found[1].replies[0].text,
                    preferred,
                    note,
                    now(),
                )
                try:
                    places.control().rate(actor, rating)
                except R1Error as error:
                    st.error("It was not kept.")
                    st.text(visible(str(error)))
                else:
                    frame.forget()
                    st.session_state["rated"] = preferred
                    st.rerun()


def _opinions(engine: Engine) -> None:
    tallies = frame.ask(None, opinions.tallies, engine)
    if not tallies:
        return
    st.subheader("Ratings so far", anchor=False)
    st.dataframe(
        [
            {
                "left": row.left_model,
                "right": row.right_model,
                "left better": row.left,
                "right better": row.right,
                "both good": row.both,
                "neither good": row.neither,
            }
            for row in tallies
        ],
        hide_index=True,
        height="content",
    )
    latest = frame.ask(None, opinions.opinions, engine, limit=10)
    panels.heading(
        "The latest",
        "Newest first; times are UTC.",
        download=lambda: panels.rows_as_csv(opinions.Opinion._fields, latest),
        name="ratings",
    )
    st.dataframe(
        [
            {
                "when, UTC": utc(row.at),
                "who": visible(row.who),
                "left": row.left_model,
                "right": row.right_model,
                "said": SAID.get(row.preferred, row.preferred),
                "note": visible(row.note),
                "question": visible(row.question),
            }
            for row in latest
        ],
        hide_index=True,
        height="content",
    )


frame.show_store("Playground", page)
