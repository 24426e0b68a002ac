"""Watching the champion: measured on fresh problems, held against its own baseline.

What is worse than the policy tolerates becomes an alarm of the store, a message to who subscribed,
and an event that starts a retraining. The other occasions for one are told here as well, so that
whoever adds problems or changes the base need not know of Prefect. How it is measured and when an
alarm is raised is in ``services.monitoring``.
"""

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.environment import home_folder, prepare_environment
from flows.events import BASE_CHANGED, CHAMPION_REGRESSED, PROBLEMS_ENOUGH, tell
from services.store import store_url
from services.versions import LINE


@flow(name="r1-monitor")
def monitor(model: str = LINE) -> "State[dict[str, Any]]":
    """Measure the champion of a registered model and tell what is not as it was."""
    home = home_folder()
    prepare_environment(home)
    said: dict[str, Any] = {"model": model, "alarms": [], "events": tell_occasions()}
    from services.line import open_line
    from services.monitoring import recheck
    from services.webhooks import open_announcer

    registry = open_line(home, store_url())
    if registry.head(model) is None:
        return Completed(message=f"{model} has no champion to watch", data=said)
    report = recheck(home, store_url(), registry, model, open_announcer(store_url()).alarm)
    said["alarms"] = [change.message for change in report.alarms]
    if report.alarms:
        tell(CHAMPION_REGRESSED, model, {"version": report.version, "alarms": said["alarms"]})
    about = "; ".join(said["alarms"]) or "as good as it was"
    message = f"{model} version {report.version}, check {report.number}: {about}"
    get_run_logger().info(message)
    return Completed(message=message, data=said)


def tell_occasions() -> list[str]:
    """Emit an event for each occasion that the retraining policy knows; their names."""
    from flows.retrain import examine

    home = home_folder()
    found = examine(home)
    situation, policy = found.situation, found.policy
    events = []
    if situation.new_problems >= policy.min_new_problems > 0:
        events.append(PROBLEMS_ENOUGH)
    if situation.known_base and situation.base != situation.known_base:
        events.append(BASE_CHANGED)
    for event in events:
        tell(event, LINE, {"reasons": list(found.due.reasons)})
    return events
