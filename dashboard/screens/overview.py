"""Where is the run, what came out? Recipe as a graph, champion, alarms, models, all runs."""

from collections.abc import Sequence

import streamlit as st
from sqlalchemy import Engine

from dashboard import address, frame, panels, stage_table
from dashboard.lineage import lineage_dot, lineage_edges, stages_drawn
from dashboard.moments import utc
from dashboard.plain_text import visible
from services import views
from services.views import Champion, Decision, Evaluation, Outcome, RaisedAlarm, Run, Stage

COLUMNS = (
    "pass@1", "pass@1/level_*", "cons@*", "language/consistency", "length/right", "length/wrong",
    "reflective/mean", "gives_up", "false_claims", "slips", "helpfulness", "safety",
)  # fmt: skip
EDGE = ("from", "to", "as")
ALARMS = 10
RUNS_HIGH, RUNS_SHOWN = 10, 100
# Runs after which the list scrolls, and is continued on another page.
ACTIONS = {"warn": "training went on", "pause": "training was paused", "rollback": "rolled back"}


def page(engine: Engine, run: Run) -> None:
    """Graph, champion, decisions, alarms and stage table of a run; and the list of all runs."""
    frame.live(run, lambda: _draw(engine, run))
    _runs(engine, run)


def _draw(engine: Engine, run: Run) -> None:
    now, stages = frame.ask(run, views.run_overview, engine, run.id)
    alarms = frame.ask(run, views.alarms, engine, run.id, ALARMS)
    champions = frame.ask(None, views.champions, engine)
    _figures(now, stages, alarms, champions)
    panels.heading(
        "The recipe",
        "Stages and what feeds them; dashed boxes have not run yet.",
        download=lambda: panels.rows_as_csv(EDGE, lineage_edges(stages)),
        name=f"{run.id}-recipe",
    )
    panels.graph(lineage_dot(stages), "Stages of the recipe and what feeds them")
    st.caption(
        "Solid: a model, to be trained on or to sample from. Dashed: data, rewards or a candidate. "
        "Orange: training starts again from the base model."
    )
    left, right = st.columns(2)
    with left:
        _decisions(frame.ask(run, views.decisions, engine, run.id), champions)
    with right:
        _alarms(alarms)
    _table(run, frame.ask(run, views.evaluation_table, engine, run.id))


def _figures(
    run: Run, stages: list[Stage], alarms: Sequence[RaisedAlarm], champions: Sequence[Champion]
) -> None:
    active = [stage for stage in stages if stage.state == "running"]
    drawn = stages_drawn([stage.name for stage in stages])
    numbers = {
        "State": run.state,
        "Stages done": f"{run.stages_done} of {len(drawn)}",
        "Time in stages": frame.duration(sum(stage.seconds for stage in stages)),
        "Now": active[-1].name if active else "–",
        "Champion": f"v{champions[0].version}" if champions else "none yet",
        "Alarms": f"{len(alarms)}{' or more' if len(alarms) == ALARMS else ''}",
    }
    with st.container(horizontal=True, gap="small"):
        for label, value in numbers.items():
            st.metric(label, value, border=True, width=165)
    for stage in active:
        if stage.progress is not None:
            done = f"{stage.name}: step {stage.last_step} of {stage.total_steps}"
            st.progress(stage.progress, text=done)


def _decisions(decisions: list[Decision], champions: Sequence[Champion]) -> None:
    panels.heading(
        "Champion and decisions",
        "The champion is the registered version that is served and exported; the gate compares "
        "every candidate with it. People may promote or roll back by hand, with a reason.",
    )
    for champion in champions:
        how = "brought back" if champion.action == "rollback" else "promoted"
        words = (
            f"{champion.model}, version {champion.version}: {how} by {champion.who} on "
            f"{champion.at:%Y-%m-%d %H:%M} UTC. {champion.why}"
        )
        st.text(visible(words.strip()))
    if not champions:
        st.text("No model has become champion yet.")
    for decision in decisions:
        if decision.promoted:
            st.success(f"This run: {decision.model} passed the gate.", icon=":material/check:")
        else:
            st.warning(f"This run: {decision.model} was refused.", icon=":material/block:")
        st.text(visible("\n".join([*decision.reasons, decision.note]).strip()))


def _alarms(alarms: Sequence[RaisedAlarm]) -> None:
    panels.heading(
        "Alarms",
        "What a guard of training, the champion's monitor or a retraining wanted somebody to know, "
        f"the latest {ALARMS} of this run.",
    )
    if not alarms:
        st.text("None.")
    for alarm in alarms:
        where = f"{alarm.stage} step {alarm.step}" if alarm.step else alarm.stage or alarm.source
        action = ACTIONS.get(alarm.action, alarm.action)
        with st.container(border=True):
            st.text(visible(f"{alarm.at:%Y-%m-%d %H:%M} UTC · {where} · {alarm.name} · {action}"))
            st.text(visible(alarm.message))


def _table(run: Run, evaluations: list[Evaluation]) -> None:
    if not evaluations:
        return
    names = stage_table.chosen(COLUMNS, (name for row in evaluations for name in row.summary))
    panels.heading(
        "Every model on the held-out problems",
        "No stage trains on these problems. Point at a column for what it measures.",
        download=lambda: panels.rows_as_csv(
            ["model", *names], [[e.model, *map(e.summary.get, names)] for e in evaluations]
        ),
        name=f"{run.id}-models",
    )
    rows = {"model": [row.model for row in evaluations]}
    st.dataframe(
        rows | {name: [row.summary.get(name) for row in evaluations] for name in names},
        hide_index=True,
        column_config=stage_table.columns(names),
        height="content",
    )
    protocol = ", ".join(f"{key} {value}" for key, value in evaluations[0].protocol.items())
    st.text(visible(f"Measured with {protocol}"))


def _runs(engine: Engine, shown: Run) -> None:
    """All runs with what came of them; another one is looked at by choosing its row."""
    count = frame.ask(None, views.count_runs, engine)
    top, pages = st.container(), -(-count // RUNS_SHOWN)
    number = address.pager(pages, key="runs_page", asked=None) if pages > 1 else 1
    start = (number - 1) * RUNS_SHOWN
    runs = frame.ask(None, views.list_runs, engine, RUNS_SHOWN, start)
    with top:
        _list(engine, shown, runs)


def _list(engine: Engine, shown: Run, runs: Sequence[Run]) -> None:
    outcomes = frame.ask(shown, views.outcomes, engine, tuple(run.id for run in runs))
    rows = [_line(run, outcomes.get(run.id)) for run in runs]
    panels.heading(
        "Every run",
        "Newest first. Choose a row to look at that run.",
        download=lambda: panels.rows_as_csv(list(rows[0]), [list(row.values()) for row in rows]),
        name="runs",
    )
    st.dataframe(
        rows,
        hide_index=True,
        height="content" if len(rows) <= RUNS_HIGH else 390,
        key=f"runs/{shown.id}",  # nothing is chosen in the list that comes next
        on_select=lambda: _look_at(shown, runs),
        selection_mode="single-row",
        column_config={
            "stages done": st.column_config.NumberColumn(
                help="Stages that are finished, or were taken from another run"
            ),
            "minutes": st.column_config.NumberColumn(
                format="%.1f", help="From its start to its end, or to what it wrote last"
            ),
            "model": st.column_config.TextColumn(
                help="The one that the gate looked at first; the numbers beside it are its own"
            ),
            **stage_table.columns(("pass@1", "language/consistency")),
        },
    )


def _line(run: Run, outcome: Outcome | None) -> dict[str, object]:
    summary = outcome.summary if outcome else {}
    return {
        "run": run.id,
        "state": run.state,
        "started, UTC": utc(run.started_at),
        "minutes": ((run.ended_at or run.seen_at) - run.started_at).total_seconds() / 60,
        "stages done": run.stages_done,
        "model": outcome.model if outcome else "",
        "pass@1": summary.get("pass@1"),
        "language/consistency": summary.get("language/consistency"),
        "gate": ("promoted" if outcome.promoted else "refused") if outcome else "",
    }


def _look_at(shown: Run, runs: Sequence[Run]) -> None:
    """Exchange the run before the page is drawn again."""
    for row in st.session_state[f"runs/{shown.id}"].selection.rows:
        st.session_state["run"] = runs[row].id


frame.show("Overview", page)
