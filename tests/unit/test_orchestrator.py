import json
from typing import Any

import httpx
import pytest

from services.errors import LaunchError
from services.orchestrator import Orchestrator, api_url

DEPLOYMENT = {
    "id": "d1",
    "name": "retrain",
    "flow_id": "f1",
    "paused": False,
    "work_pool_name": "process",
    "description": "when it is due",
    "schedules": [
        {"active": True, "schedule": {"cron": "0 3 * * *", "timezone": "UTC"}},
        {"active": False, "schedule": {"interval": 7200.0}},
    ],
    "parameter_openapi_schema": {"properties": {"force": {"type": "boolean"}}},
}
RUN = {
    "id": "r1",
    "name": "quick-fox",
    "deployment_id": "d1",
    "state_type": "SCHEDULED",
    "state_name": "Scheduled",
    "expected_start_time": "2026-01-02T03:00:00Z",
    "start_time": None,
    "total_run_time": 0.0,
}


class Server:
    """Answers as Prefect does, and keeps what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api")
        self.asked.append((path, json.loads(request.content)))
        answer = self.answers[path.strip("/").replace("/", "_")]
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def ask(server: Server) -> Orchestrator:
    return Orchestrator("http://prefect.test/api", httpx.MockTransport(server))


def test_deployments_say_when_they_run() -> None:
    server = Server(deployments_filter=[DEPLOYMENT], flows_filter=[{"id": "f1", "name": "retrain"}])
    (found,) = ask(server).deployments()
    assert found.name == "retrain/retrain"
    assert found.schedules == ("cron 0 3 * * * (UTC)", "every 2 hours, paused")
    assert found.parameters == ("force",)


def test_next_runs_are_asked_for_by_time() -> None:
    server = Server(flow_runs_filter=[RUN])
    (run,) = ask(server).upcoming(5)
    assert (run.deployment, run.ended) == ("d1", False)
    assert run.expected_at is not None
    assert run.expected_at.hour == 3
    ((_, body),) = server.asked
    assert body["sort"] == "EXPECTED_START_TIME_ASC"
    assert body["flow_runs"]["state"]["type"]["any_"] == ["SCHEDULED"]


def test_launching_hands_over_the_parameters() -> None:
    server = Server(deployments_d1_create_flow_run=RUN)
    assert ask(server).launch("d1", {"force": True}).name == "quick-fox"
    ((_, body),) = server.asked
    assert body["parameters"] == {"force": True}


def test_a_refused_cancellation_is_an_error() -> None:
    refused = {"status": "REJECT", "state": {"type": "COMPLETED"}, "details": {"reason": "ended"}}
    with pytest.raises(LaunchError, match="ended"):
        ask(Server(flow_runs_r1_set_state=refused)).cancel("r1")
    accepted = {"status": "ACCEPT", "state": {"type": "CANCELLING"}}
    ask(Server(flow_runs_r1_set_state=accepted)).cancel("r1")


def test_a_suspended_run_is_completed_with_a_message_and_an_ended_one_is_left() -> None:
    server = Server(flow_runs_r1_set_state={"status": "REJECT", "state": {"type": "CANCELLED"}})
    ask(server).complete("r1", "approved by anna")
    ((_, body),) = server.asked
    assert body["force"] is False
    assert body["state"] == {
        "type": "COMPLETED", "name": "Completed", "message": "approved by anna",
    }  # fmt: skip


@pytest.mark.parametrize("status", [401, 500])
def test_what_the_server_refuses_names_the_mend(status: int) -> None:
    server = Server(flow_runs_filter=httpx.Response(status))
    with pytest.raises(LaunchError, match=f"answers {status}.*PREFECT_API_URL"):
        ask(server).recent()


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(LaunchError, match="does not answer"):
        Orchestrator("http://127.0.0.1:9/api").recent()


def test_the_address_is_that_of_the_environment() -> None:
    assert api_url({}) is None
    assert api_url({"PREFECT_API_URL": "http://x/api/"}) == "http://x/api"
