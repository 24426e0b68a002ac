"""What waits for a person to say yes or no."""

from sqlalchemy import Engine

from services.store.approvals import ApprovalRequest, requests

MAX_WAITING = 50


def waiting_requests(engine: Engine, model: str | None = None) -> list[ApprovalRequest]:
    """Requests for approval that have no answer yet, oldest first; of one model or of all."""
    return requests(engine, "waiting", model)[:MAX_WAITING]
