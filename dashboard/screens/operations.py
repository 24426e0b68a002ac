"""What runs, what will run, and how do I start or stop it?"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import streamlit as st

from dashboard import approvals, frame, launch_form, panels, people, places
from dashboard.moments import utc
from dashboard.plain_text import visible
from services import detached, views
from services.access import Actor
from services.detached import Launch
from services.errors import LaunchError, R1Error
from services.orchestrator import Deployment, FlowRun, Orchestrator

REFRESH: Final = timedelta(seconds=5)
LAUNCHES_SHOWN: Final = 5
RUNS_SHOWN: Final = 10


def page() -> None:
    """Launches of this machine, then what the Prefect server has."""
    actor = people.here()
    if told := st.session_state.pop("told", None):
        st.success(told)
    # A first run can be launched without a store, and a broken one takes no more than its part.
    with frame.failures_in_words(), suppress(views.MissingStoreError):
        approvals.draw(actor, frame.open_store())
    launch_form.draw(actor)
    _launches_live(actor)
    st.subheader("Schedules and deployments", anchor=False)
    server = places.orchestrator()
    if server is None:
        st.info(
            "No Prefect server is configured. This starts one with the scheduled flows on this "
            "machine; for a server elsewhere set PREFECT_API_URL. Single runs need neither."
        )
        st.code("r1 up", language="bash")
        return
    _server_live(actor, server)


@st.fragment(run_every=REFRESH)
def _launches_live(actor: Actor) -> None:
    with frame.failures_in_words():
        found = detached.launches(places.home(), LAUNCHES_SHOWN)
        panels.heading(
            "Launched from here",
            "The latest runs that were started on this page, with the end of what they printed.",
        )
        if not found:
            st.text(f"Nothing yet. A first run takes minutes: {frame.FIRST_COMMAND}")
        for launch in found:
            _launch(actor, launch)


def _launch(actor: Actor, launch: Launch) -> None:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(
                "running" if launch.alive else "ended", color="blue" if launch.alive else "gray"
            )
            changed = ", ".join(launch.changes) or "as it is"
            st.text(
                visible(
                    f"{launch.run_id} · recipe {launch.recipe} ({changed}) · by {launch.who} · "
                    f"{utc(launch.at)} UTC"
                ),
                width="content",
            )
            if launch.alive and people.button(
                actor, "cancel runs", "Stop", key=f"stop/{launch.id}", icon=":material/stop:"
            ):
                _confirm_stop(actor, launch)
        with st.expander("What it printed"):
            tail = detached.log_tail(places.home(), launch.id)
            st.code(visible(tail) or "Nothing yet.", language=None, wrap_lines=True)


def _confirm_stop(actor: Actor, launch: Launch) -> None:
    _confirm(
        "Stop a run",
        f"{launch.run_id} is asked to stop. Launched again it goes on from its last "
        "checkpoint. Asked a second time it is ended at once.",
        "Stop it",
        lambda: places.control().stop(actor, launch.id),
        f"{launch.run_id} was asked to stop.",
    )


def _confirm_cancel(actor: Actor, run: FlowRun) -> None:
    _confirm(
        "Cancel a flow run",
        f"{run.name} is cancelled; what its stages have finished is kept.",
        "Cancel it",
        lambda: places.control().cancel_flow_run(actor, run.id),
        f"{run.name} is being cancelled.",
    )


def _confirm(title: str, what: str, label: str, act: Callable[[], object], done: str) -> None:
    """Ask once more before something that runs is ended."""

    @st.dialog(title)
    def ask() -> None:
        st.text(visible(what))
        if st.button(label, key="end_confirmed", type="primary"):
            try:
                act()
            except R1Error as error:
                st.text(visible(str(error)))
                return
            st.session_state["told"] = done
            st.rerun()

    ask()


@st.fragment(run_every=REFRESH)
def _server_live(actor: Actor, server: Orchestrator) -> None:
    try:
        deployments, coming = server.deployments(), server.upcoming(RUNS_SHOWN)
        recent = server.recent(RUNS_SHOWN)
    except LaunchError as error:
        st.error("The Prefect server cannot be asked.")
        st.text(visible(str(error)))
        return
    _deployments(actor, deployments)
    _upcoming(deployments, coming)
    _recent(actor, recent)


def _deployments(actor: Actor, deployments: Sequence[Deployment]) -> None:
    panels.heading("Deployments", "Flows that the server can start, and when it does so by itself.")
    if not deployments:
        st.text("The server has none yet; r1 up registers them.")
    for deployment in deployments:
        with (
            st.container(border=True),
            st.container(horizontal=True, vertical_alignment="center"),
        ):
            state = "paused" if deployment.paused else "active"
            st.badge(state, color="gray" if deployment.paused else "green")
            when = "; ".join(deployment.schedules) or "started by hand or by events"
            st.text(
                visible(f"{deployment.name} · {when} · pool {deployment.pool or 'none'}"),
                width="content",
            )
            if people.button(
                actor,
                "launch runs",
                "Run now",
                key=f"run/{deployment.id}",
                icon=":material/play_arrow:",
            ):
                _confirm_run(actor, deployment)


def _confirm_run(actor: Actor, deployment: Deployment) -> None:
    @st.dialog(f"Run {deployment.name}")
    def ask() -> None:
        st.text(f"Parameters: {', '.join(deployment.parameters) or 'none'}")
        text = st.text_area(
            "Over those of the deployment, as JSON", "{}", key="parameters", height=120
        )
        parameters = _parameters(text)
        if parameters is None:
            st.warning("That is no JSON object.")
        if st.button("Run it", key="run_confirmed", type="primary", disabled=parameters is None):
            try:
                run = places.control().launch_deployment(actor, deployment.id, parameters or {})
            except R1Error as error:
                st.text(visible(str(error)))
                return
            st.session_state["told"] = f"{run.name} is scheduled now."
            st.rerun()

    ask()


def _parameters(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _upcoming(deployments: Sequence[Deployment], coming: Sequence[FlowRun]) -> None:
    panels.heading("Next runs", "What the schedules will start, soonest first; times are UTC.")
    names = {deployment.id: deployment.name for deployment in deployments}
    if not coming:
        st.text("Nothing is scheduled.")
        return
    st.dataframe(
        [
            {
                "when, UTC": utc(run.expected_at),
                "deployment": names.get(run.deployment, "by hand"),
                "run": visible(run.name),
                "state": run.state,
            }
            for run in coming
        ],
        hide_index=True,
        height="content",
    )


def _recent(actor: Actor, recent: Sequence[FlowRun]) -> None:
    panels.heading("Flow runs", "What runs or waits now and what ended last, newest first.")
    if not recent:
        st.text("None yet.")
        return
    for run in (run for run in recent if not run.ended):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(run.state, color="blue")
            st.text(visible(f"{run.name} · {_since(run.started_at)}"), width="content")
            if people.button(
                actor, "cancel runs", "Cancel", key=f"cancel/{run.id}", icon=":material/cancel:"
            ):
                _confirm_cancel(actor, run)
    st.dataframe(
        [
            {
                "started, UTC": utc(run.started_at),
                "run": visible(run.name),
                "state": run.state,
                "minutes": run.seconds / 60,
            }
            for run in recent
        ],
        hide_index=True,
        height="content",
        column_config={
            "minutes": st.column_config.NumberColumn(format="%.1f", help="Time at work"),
        },
    )


def _since(moment: datetime | None) -> str:
    return f"since {utc(moment)} UTC" if moment else "not begun"


st.title("Operations", anchor=False)
with frame.failures_in_words():
    page()
