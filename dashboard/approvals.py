"""Candidates that passed the gate and wait for a person: what is asked, and the answer."""

import streamlit as st
from sqlalchemy import Engine

from dashboard import frame, panels, people, places
from dashboard.moments import utc
from dashboard.plain_text import visible
from services.access import Actor
from services.errors import R1Error
from services.store.approvals import ApprovalRequest
from services.views import waiting


def draw(actor: Actor, engine: Engine, model: str | None = None) -> None:
    """What waits, with a yes and a no; nothing where nothing waits."""
    found = waiting.waiting_requests(engine, model)
    if not found:
        return
    panels.heading(
        "Waiting for approval",
        "These passed the gate, and their policy asks a person. A yes promotes at once, unless "
        "the champion has changed since the gate looked.",
    )
    for request in found:
        with st.container(border=True):
            reasons = "\n".join(f"• {reason}" for reason in request.reasons)
            st.text(
                visible(
                    f"{request.model} version {request.version}, asked {utc(request.asked_at)} "
                    f"UTC by {request.run_id or 'hand'}\nWithout an answer by "
                    f"{utc(request.expires_at)} UTC the policy says {request.at_timeout}.\n"
                    f"{reasons}"
                )
            )
            with st.container(horizontal=True):
                for approve, label in ((True, "Approve"), (False, "Reject")):
                    if people.button(
                        actor, "decide on approvals", label, key=f"{label}/{request.id}"
                    ):
                        _confirm(actor, request, approve=approve)


def _confirm(actor: Actor, request: ApprovalRequest, *, approve: bool) -> None:
    title = "Approve" if approve else "Reject"

    @st.dialog(title)
    def ask() -> None:
        st.text(f"Request {request.id}: {request.model} version {request.version}")
        why = st.text_area("Why? It is kept with your name.", key="answer_why", max_chars=2000)
        if not st.button(title, key="answered", type="primary", disabled=not why.strip()):
            return
        try:
            done = places.control().decide(actor, request.id, approve=approve, why=why)
        except R1Error as error:
            st.error("That was refused.")
            st.text(visible(str(error)))
            return
        frame.forget()
        st.session_state["told"] = f"Request {done.id} was {done.state}. {done.outcome}"
        st.rerun()

    ask()
