"""What the Prefect server knows and can be asked to do, over its HTTP API.

Services do not import Prefect: these few calls need no client library, and without
``PREFECT_API_URL`` there is nobody to ask. Times are UTC, answers are short.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import httpx

from services.errors import LaunchError

TIMEOUT_SECONDS: Final = 5.0
MAX_ITEMS: Final = 50
ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})


class Deployment(NamedTuple):
    """A flow that the server can start."""

    id: str
    name: str
    """``flow/deployment``."""
    schedules: tuple[str, ...]
    """Each one as people read it; paused ones say so."""
    paused: bool
    pool: str
    """The work pool that runs it; empty where it is served by a process."""
    description: str
    parameters: tuple[str, ...]
    """Names that a run of it takes."""


class FlowRun(NamedTuple):
    """One run of a flow, past, present or to come."""

    id: str
    name: str
    deployment: str
    """Id; empty where it was started by hand."""
    state: str
    """As the server names it: Scheduled, Running, Suspended, …"""
    ended: bool
    expected_at: datetime | None
    started_at: datetime | None
    seconds: float


def api_url(environment: Mapping[str, str] = os.environ) -> str | None:
    """Address of the Prefect server, or None where none is configured."""
    return (environment.get("PREFECT_API_URL") or "").rstrip("/") or None


class Orchestrator:
    """A Prefect server."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        """Ask the server at ``url``, which ends in ``/api``."""
        self._url = url
        self._client = httpx.Client(
            base_url=url, timeout=TIMEOUT_SECONDS, headers=_credentials(), transport=transport
        )

    def deployments(self) -> list[Deployment]:
        """What the server can start, by name."""
        found = self._post("/deployments/filter", {"limit": MAX_ITEMS, "sort": "NAME_ASC"})
        flows = self._post(
            "/flows/filter",
            {"flows": {"id": {"any_": sorted({row["flow_id"] for row in found})}}},
        )
        names = {row["id"]: row["name"] for row in flows}
        return sorted((_deployment(row, names) for row in found), key=lambda row: row.name)

    def upcoming(self, limit: int = 10) -> list[FlowRun]:
        """The next runs, soonest first."""
        return self._runs(["SCHEDULED"], "EXPECTED_START_TIME_ASC", limit)

    def recent(self, limit: int = 10) -> list[FlowRun]:
        """What runs or waits, and what ended last; newest first. Stages of a run are left out."""
        states = ["RUNNING", "PENDING", "PAUSED", "CANCELLING", *sorted(ENDED)]
        return self._runs(states, "EXPECTED_START_TIME_DESC", limit)

    def launch(self, deployment: str, parameters: Mapping[str, Any]) -> FlowRun:
        """Have a deployment run now.

        Args:
            deployment: Its id.
            parameters: Over those of the deployment.
        """
        body = {
            "parameters": dict(parameters),
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }
        return _flow_run(self._post(f"/deployments/{deployment}/create_flow_run", body))

    def cancel(self, flow_run: str) -> None:
        """Ask a run to end; its worker stops the process.

        Raises:
            LaunchError: The server refuses, for instance because it has ended.
        """
        body = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": False}
        answer = self._post(f"/flow_runs/{flow_run}/set_state", body)
        state = (answer.get("state") or {}).get("type", "")
        if answer.get("status") not in {"ACCEPT", None} and state not in {
            "CANCELLING",
            "CANCELLED",
        }:
            reason = (answer.get("details") or {}).get("reason") or answer.get("status")
            raise LaunchError(f"the run cannot be cancelled: {reason}", "Look at its state again")

    def complete(self, flow_run: str, said: str) -> None:
        """End a suspended run, with what it waited for; a run that ended already stays as it is.

        Raises:
            LaunchError: The server does not answer.
        """
        state = {"type": "COMPLETED", "name": "Completed", "message": said}
        self._post(f"/flow_runs/{flow_run}/set_state", {"state": state, "force": False})

    def _runs(self, states: list[str], sort: str, limit: int) -> list[FlowRun]:
        wanted = {
            "state": {"type": {"any_": states}},
            "parent_task_run_id": {"is_null_": True},
        }
        body = {"flow_runs": wanted, "sort": sort, "limit": min(limit, MAX_ITEMS)}
        return [_flow_run(row) for row in self._post("/flow_runs/filter", body)]

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        mend = "Start the server, or mend or unset PREFECT_API_URL"
        try:
            answer = self._client.post(path, json=body)
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPStatusError as error:
            said = f"{error.response.status_code} {error.response.reason_phrase}"
            raise LaunchError(f"the Prefect server at {self._url} answers {said}", mend) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            what = f"the Prefect server at {self._url} does not answer: {error}"
            raise LaunchError(what, mend) from error


def _credentials() -> dict[str, str]:
    """As Prefect's own client sends them."""
    import base64

    if key := os.environ.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _deployment(row: Mapping[str, Any], flows: Mapping[str, str]) -> Deployment:
    schema = row.get("parameter_openapi_schema") or {}
    return Deployment(
        row["id"],
        f"{flows.get(row['flow_id'], '?')}/{row['name']}",
        tuple(_schedule(entry) for entry in row.get("schedules") or ()),
        bool(row.get("paused")),
        row.get("work_pool_name") or "",
        row.get("description") or "",
        tuple(schema.get("properties") or ()),
    )


def _schedule(entry: Mapping[str, Any]) -> str:
    schedule = entry["schedule"]
    zone = schedule.get("timezone") or "UTC"
    if "cron" in schedule:
        words = f"cron {schedule['cron']} ({zone})"
    elif "interval" in schedule:
        words = f"every {_span(float(schedule['interval']))}"
    else:
        words = f"rule {schedule.get('rrule', '?')} ({zone})"
    return words if entry.get("active", True) else f"{words}, paused"


def _span(seconds: float) -> str:
    for size, word in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} seconds"


def _flow_run(row: Mapping[str, Any]) -> FlowRun:
    return FlowRun(
        row["id"],
        row["name"],
        row.get("deployment_id") or "",
        row.get("state_name") or (row.get("state_type") or "").title(),
        row.get("state_type") in ENDED,
        _moment(row.get("expected_start_time")),
        _moment(row.get("start_time")),
        float(row.get("total_run_time") or 0.0),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
